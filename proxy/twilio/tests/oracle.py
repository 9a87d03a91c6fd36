"""Twilio's official library, answering one JSON line for each one asked.

Asked: token, url, pairs, algorithm, and perhaps body and signature.
Answered: the signature it computes, and whether it accepts the one given.
"""

import json
import sys

from twilio.request_validator import RequestValidator


class Pairs(dict):
    """Repeated names, as the library expects them of a web framework."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.pairs = pairs

    def getall(self, name):
        return [value for known, value in self.pairs if known == name]


for line in sys.stdin:
    asked = json.loads(line)
    validator = RequestValidator(asked["token"])
    pairs = Pairs([tuple(pair) for pair in asked["pairs"]])
    params = pairs if asked.get("body") is None else asked["body"]
    answer = {
        "signature": validator.compute_signature(asked["url"], pairs, asked["algorithm"]),
        "valid": bool(validator.validate(asked["url"], params, asked.get("signature", ""), asked["algorithm"])),
    }
    print(json.dumps(answer), flush=True)
