-- SPDX-License-Identifier: MIT
-- wrk: the same image again and again; the result as checkins.lua prints it.
function done(summary, latency)
   local e = summary.errors
   io.write(string.format(
      '\nRESULT {"requests":%d,"seconds":%.6f,"bytes":%d,"bad":%d,"broken":%d,"p99_us":%d}\n',
      summary.requests, summary.duration / 1e6, summary.bytes, e.status,
      e.connect + e.read + e.write + e.timeout, latency:percentile(99)))
end
