# SPDX-License-Identifier: MIT
"""A fleet over MQTT and a real service with its own broker: what both say in the end."""

FIELD = ("fail:4=4,fail:2=4,brick=2,roll_back=4,lie=3,twice=15,broken_link=10,slow:200000=10,"
         "late:1=10,out_of_order:1=10,duty:2/1=10,old_topics=20")


def test_two_hundred_devices_end_consistent(fleet, services):
    service = services(mqtt=True)
    told = fleet.json("run", "--broker", "127.0.0.1:%d" % service.mqtt_port, "--devices", 200,
                      "--quiet", 4, service=service)
    assert told["consistent"] is True and told["versions"] == {"1.2.0": 200}
    assert told["offers"] == 200 and told["offers_again"] == 0


def test_the_field_with_all_its_habits(fleet, services):
    service = services(mqtt=True, env={"OTA_POLL_INTERVAL_S": 1})
    told = fleet.json("run", "--broker", "127.0.0.1:%d" % service.mqtt_port, "--devices", 200,
                      "--seed", 7, "--quiet", 4, "--habits", FIELD, service=service)
    assert told["consistent"] is True
    for outcome in ("success", "failed", "rolled_back", "bricked"):
        assert told["attempts"][outcome] > 0, told


def test_devices_without_power_are_told_again(fleet, services):
    service = services(mqtt=True, env={"OTA_COMMAND_TIMEOUT_S": 1, "OTA_POLL_INTERVAL_S": 1})
    told = fleet.json("run", "--broker", "127.0.0.1:%d" % service.mqtt_port, "--devices", 60,
                      "--quiet", 8, "--habits", "power_loss=100", service=service)
    assert told["consistent"] is True
    assert told["versions"] == {"1.2.0": 60} and told["attempts"]["open"] == 0


def test_each_its_own_connection(fleet, services):
    service = services(mqtt=True, env={"OTA_COMMAND_TIMEOUT_S": 3})
    told = fleet.json("run", "--broker", "127.0.0.1:%d" % service.mqtt_port, "--devices", 100,
                      "--connections", "each", "--quiet", 4, "--habits", "duty:3/1=20,late:1=10",
                      service=service)
    assert told["consistent"] is True and told["versions"] == {"1.2.0": 100}
