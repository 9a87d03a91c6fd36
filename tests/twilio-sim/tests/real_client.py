"""Drives the simulator's REST API with Twilio's own library, and prints what it saw as JSON.

Arguments: base URL of the simulator, account SID, auth token, URL of the application.
"""

import json
import sys
import time

from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

base, account, token, application = sys.argv[1:]


class Here(TwilioHttpClient):
    """The library's own HTTP client, with another host."""

    def request(self, method, url, *arguments, **named):
        return super().request(method, url.replace("https://api.twilio.com", base), *arguments, **named)


client = Client(account, token, http_client=Here())


def error(what):
    try:
        what()
    except TwilioRestException as fault:
        return [fault.status, fault.code]
    return None


def until(look, wanted, patience=10.0):
    """Looks until the wanted thing is seen."""
    end = time.monotonic() + patience
    seen = look()
    while seen != wanted and time.monotonic() < end:
        time.sleep(0.02)
        seen = look()
    return seen


seen = {}

call = client.calls.create(
    to="+15005550010",
    from_="+15005550001",
    url=application + "/caller",
    status_callback=application + "/status",
    status_callback_event=["initiated", "answered", "completed"],
    timeout=20,
)
seen["created"] = [call.status, call.direction, call.to, call._from, call.account_sid]
seen["answered"] = until(lambda: client.calls(call.sid).fetch().status, "in-progress")
until(lambda: len(client.conferences.list(friendly_name="room", status="init")), 1)
rooms = client.conferences.list(friendly_name="room")
seen["rooms"] = [[room.friendly_name, room.status] for room in rooms]
room = client.conferences(rooms[0].sid)
seen["participants"] = [[one.call_sid == call.sid, one.muted] for one in room.participants.list()]
one = room.participants(call.sid)
seen["muted"] = one.update(muted=True).muted
seen["fetched"] = [one.fetch().muted, room.fetch().status]
seen["kicked"] = one.delete()
seen["over"] = until(lambda: room.fetch().status, "completed")
seen["why"] = room.fetch().reason_conference_ended

other = client.calls.create(
    to="+15005550010", from_="+15005550001", twiml="<Response><Pause length='600'/></Response>"
)
until(lambda: client.calls(other.sid).fetch().status, "in-progress")
client.calls(other.sid).update(url=application + "/elsewhere", method="POST")
seen["redirected"] = until(lambda: client.calls(other.sid).fetch().status, "completed")
third = client.calls.create(to="+15005550011", from_="+15005550001", url=application + "/caller")
client.calls(third.sid).update(status="canceled")
seen["canceled"] = until(lambda: client.calls(third.sid).fetch().status, "canceled")

seen["errors"] = {
    "not in progress": error(lambda: client.calls(other.sid).update(url=application + "/x")),
    "no such call": error(lambda: client.calls("CA" + "0" * 32).fetch()),
    "no such participant": error(lambda: room.participants("CA" + "0" * 32).fetch()),
    "no URL": error(lambda: client.calls.create(to="+15005550010", from_="+15005550001")),
    "wrong token": error(lambda: Client(account, "wrong", http_client=Here()).calls(call.sid).fetch()),
}
seen["listed"] = sorted(listed.status for listed in client.calls.list(page_size=2))
seen["deleted"] = client.calls(other.sid).delete()
seen["left"] = len(client.calls.list())
print(json.dumps(seen))
