-- SPDX-License-Identifier: MIT
-- wrk: check-ins of known devices that say nothing new, one device after the other.
-- Arguments: number of devices, "close" for a new connection each.
local requests, at = {}, 0

function init(args)
   local models = { [0] = "esp32", "esp32-s3", "esp32-c3", "esp8266" }
   local devices, headers = tonumber(args[1]), {}
   if args[2] == "close" then headers["Connection"] = "close" end
   for i = 0, devices - 1 do
      requests[i + 1] = wrk.format("GET", string.format(
         "/api/firmware/check?device_id=bench-%07d&device_model=%s&current_version=1.0.0",
         i, models[i % 4]), headers)
   end
end

function request()
   at = at % #requests + 1
   return requests[at]
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format(
      '\nRESULT {"requests":%d,"seconds":%.6f,"bytes":%d,"bad":%d,"broken":%d,"p99_us":%d}\n',
      summary.requests, summary.duration / 1e6, summary.bytes, e.status,
      e.connect + e.read + e.write + e.timeout, latency:percentile(99)))
end
