"""Classify texts with the model in this folder. It needs what requirements.txt names, and nothing else.

python run.py "a text" "another text"      one line of JSON per text
python run.py < texts.txt                  one text per line
python run.py --check                      answers the example that lies in check.json and compares
python run.py --serve 8765                 answers POST requests on this machine, one text per line (0 = any free port)
"""

import json
import sys
from pathlib import Path

import numpy as np
from loader import load
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
MODEL = json.loads((HERE / "model.json").read_text(encoding="utf-8"))


class Classifier:
    """`Classifier()(["a text", ("a pair", "of texts")])` gives a label and its probability for each."""

    def __init__(self, threads=None):
        self.tokenizer = Tokenizer.from_file(str(HERE / "tokenizer" / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MODEL["sequence"])
        self.call = load(HERE / "model", MODEL, MODEL["threads"] if threads is None else threads)

    def logits(self, text):
        """Logits of one text (or pair), float32 of shape (classes,)."""
        encoded = self.tokenizer.encode(*([text] if isinstance(text, str) else text))
        given = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
        batch = {name: self._padded(name, given[name]) for name in MODEL["inputs"]}
        return np.asarray(self.call(batch), dtype=np.float32)[0]

    def __call__(self, texts):
        answers = []
        for text in texts:
            logits = self.logits(text)
            odds = np.exp(logits - logits.max())
            best = int(logits.argmax())
            answers.append({"label": MODEL["labels"][best], "probability": float(odds[best] / odds.sum())})
        return answers

    def _padded(self, name, tokens):
        length = MODEL["sequence"] if MODEL["fixed"] else len(tokens)
        row = tokens[:length] + [MODEL["pad"].get(name, 0)] * (length - len(tokens))
        return np.array([row] * (MODEL["batch"] if MODEL["fixed"] else 1), dtype=np.int64)


def check():
    """Compare with the logits that were seen when this folder was written."""
    seen = json.loads((HERE / "check.json").read_text(encoding="utf-8"))
    texts = [text[0] if len(text) == 1 else tuple(text) for text in seen["texts"]]
    given = np.array([Classifier().logits(text) for text in texts])
    gap = float(np.abs(given - np.array(seen["logits"])).max())
    print(
        json.dumps(
            {
                "examples": len(texts),
                "largest_difference": gap,
                "same_labels": bool((given.argmax(1) == np.array(seen["logits"]).argmax(1)).all()),
            }
        )
    )
    return 0 if gap <= seen["tolerance"] else 1


def serve(port):
    """Answer until interrupted, one request after the other; nobody but this machine is listened to.

    An example of a service, without users, limits or encryption: put a real server in front of it.
    """
    from http.server import BaseHTTPRequestHandler, HTTPServer

    classifier = Classifier()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            texts = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode("utf-8").splitlines()
            body = json.dumps(classifier(texts)).encode("utf-8")
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *ignored):
            pass

    server = HTTPServer(("127.0.0.1", port), Answer)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]))
    if sys.argv[1:] == ["--check"]:
        sys.exit(check())
    asked = sys.argv[1:] or [line.rstrip("\n") for line in sys.stdin]
    for text, answer in zip(asked, Classifier()(asked), strict=True):
        print(json.dumps({"text": text, **answer}))
