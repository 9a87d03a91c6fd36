"""Writes TwiML for voice with Twilio's official library: everything it has a name for, or at random.

Each line of input is a question in JSON, each line of output the answer: {"documents": [...]}.
"""

import inspect
import json
import random
import sys

from twilio.twiml.voice_response import VoiceResponse

# Texts and values that are hard on a writer or a reader of XML.
NASTY = [
    "Hello",
    "a & b < c > d \"e\" 'f'",
    "]]>",
    "<Say>not a verb</Say>",
    "J\u00fcrg \u4f60\u597d \U0001f600",
    "tab\tand\nnewline",
    " ",
    "&amp; &#65;",
    "--> <!-- <?xml",
    "https://a.example/b?c=1&d=%20#rc=3",
]
DEPTH = 4


def writers(element):
    """The methods of an element that append another."""
    for name, method in inspect.getmembers(element, inspect.ismethod):
        own = name not in ("append", "nest", "to_xml", "xml", "add_child")
        if own and not name.startswith("_"):
            yield method


def arguments(method, choose):
    """A value for each parameter of a method; which, `choose` says."""
    taken = {}
    for parameter in inspect.signature(method).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        value = choose(parameter)
        if value is not None:
            taken[parameter.name] = value
    return taken


def every():
    """One document for each way from the response to an element, all attributes set."""
    def always(parameter):
        return "1" if parameter.default is not parameter.empty else "text"

    def documents(ways):
        for way in ways:
            response = VoiceResponse()
            element = response
            for name in way:
                method = getattr(element, name)
                element = method(**arguments(method, always))
            yield str(response)
            if len(way) < DEPTH:
                deeper = [way + (method.__name__,) for method in writers(element)]
                # An element inside one of its own kind says nothing new.
                yield from documents([way for way in deeper if way.count(way[-1]) == 1])

    return sorted(set(documents([()])))


def at_random(chance, count):
    def maybe(parameter):
        needed = parameter.default is parameter.empty
        if not needed and chance.random() < 0.6:
            return None
        return chance.choice(NASTY if needed else NASTY + [True, False, 0, 7, ["a", "b"]])

    def fill(element, depth):
        methods = list(writers(element))
        for _ in range(chance.randrange(4) if methods else 0):
            method = chance.choice(methods)
            child = method(**arguments(method, maybe))
            if depth < DEPTH:
                fill(child, depth + 1)
        if chance.random() < 0.1:
            element.append(chance.choice(NASTY))
            element.add_child("Custom", chance.choice(NASTY), someAttribute=chance.choice(NASTY))

    for _ in range(count):
        response = VoiceResponse()
        fill(response, 0)
        try:
            # Without its declaration a document is whole, too.
            yield response.to_xml(chance.random() < 0.9)
        except TypeError:
            # What the library cannot write, nobody receives.
            pass


for line in sys.stdin:
    question = json.loads(line)
    if question.get("every"):
        documents = every()
    else:
        documents = list(at_random(random.Random(question["seed"]), question["count"]))
    print(json.dumps({"documents": documents}), flush=True)
