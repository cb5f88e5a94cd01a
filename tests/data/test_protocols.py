"""The protocols: files read as the set whose rows they hold, cut and scored as the papers' code does it."""

import json
import math

import pytest
import torch

from tasks.data.protocols import PROTOCOLS
from tasks.data.sources import protocol_of, read
from tasks.data.task import tokenize
from tasks.data.tokens import encode, encode_with_bytes, scored_bytes
from tasks.evaluate.perplexity import bits_per_byte, perplexity
from tasks.handles import Checkpoint
from tasks.model.load import fingerprint
from tests.cases import VOCABULARY, llama
from tests.data.tokenizers import single_bytes

LINES = " \n = Tree = \n \n A tree \u2028 grows . \n It bears \x0b fruit . \n \n"
ROWS = ["", " = Tree = \n", "", " A tree \u2028 grows . \n", " It bears \x0b fruit . \n", ""]  # as the hub has them


class Characters:
    """A slow tokenizer of characters, with one id before each text."""

    def __call__(self, documents, verbose):
        return {"input_ids": [[1] + [ord(letter) % (VOCABULARY - 2) + 2 for letter in text] for text in documents]}


def test_wikitext_from_a_file_is_what_the_hub_has(tmp_path):
    (tmp_path / "wiki.test.raw.txt").write_text(LINES, newline="")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in ROWS))
    for name in ("wiki.test.raw.txt", "rows.jsonl"):
        for role in ("calibration", "evaluation"):
            documents = read(f"wikitext2:{tmp_path / name}", role)
            assert documents.texts == ("\n\n".join(ROWS),)
            assert documents.source == f"wikitext2:{tmp_path / name}"
    assert read(str(tmp_path / "wiki.test.raw.txt"), "evaluation").texts == (LINES,)  # a text like any other


def test_the_penn_treebank_from_a_file(tmp_path):
    (tmp_path / "ptb.test.txt").write_text(" no it was n't \n the <unk> \n")
    (tmp_path / "rows.jsonl").write_text('{"sentence": "no it was n\'t"}\n{"sentence": "the <unk>"}\n')
    for name in ("ptb.test.txt", "rows.jsonl"):
        for role in ("calibration", "evaluation"):
            assert read(f"ptb:{tmp_path / name}", role).texts == ("no it was n't the <unk>",)


def test_c4_is_scored_on_the_first_1100_documents_and_calibrated_on_each(tmp_path):
    path = tmp_path / "c4-validation.jsonl"
    path.write_text("".join(json.dumps({"text": f"document {n}", "url": ""}) + "\n" for n in range(1203)))
    assert read(f"c4:{path}", "evaluation").texts == (" ".join(f"document {n}" for n in range(1100)),)
    assert read(f"c4:{path}", "calibration").texts == tuple(f"document {n}" for n in range(1203))


@pytest.mark.parametrize(
    ("source", "role", "name"),
    [
        ("c4", "evaluation", "c4"),
        ("c4:a.jsonl", "evaluation", "c4"),
        ("c4", "calibration", None),
        ("docs", "evaluation", None),
        ("a.txt", "evaluation", None),
    ],
)
def test_a_protocol_is_of_what_is_scored(source, role, name):
    assert protocol_of(source, role) is PROTOCOLS.get(name)


@pytest.mark.parametrize(("name", "windows"), [("wikitext2", 300), ("ptb", 300), ("c4", 256)])
def test_windows_and_loss_are_those_of_the_papers_code(name, windows):
    """Wanda's: the mean over the predicted tokens of a window, times all its tokens; the sum over all tokens."""
    window, model, protocol = 4, llama().double(), PROTOCOLS[name]
    letters = torch.randint(97, 123, (1202,), generator=torch.Generator().manual_seed(2)).tolist()
    text = "".join(map(chr, letters))
    ids_T = protocol.scored(encode([text], Characters()), window)

    ids = [1, *(letter % (VOCABULARY - 2) + 2 for letter in letters)]  # 1203: 300 windows, and 3 that are dropped
    of_windows = []
    for start in range(0, windows * window, window):
        inputs = torch.tensor([ids[start : start + window]])
        with torch.no_grad():
            log_prob_TV = model(inputs).logits[0].log_softmax(-1)
        losses = [-log_prob_TV[t, ids[start + t + 1]].item() for t in range(window - 1)]
        of_windows.append(sum(losses) / len(losses) * window)
    published = math.exp(math.fsum(of_windows) / (windows * window))

    scored = perplexity(model, ids_T, window)
    assert (scored.windows, scored.tokens) == (windows, windows * (window - 1))
    assert scored.ppl == pytest.approx(published, rel=1e-6)


def test_bits_per_byte_are_of_the_scored_tokens_and_their_bytes_alone():
    model, window = llama(vocab_size=256), 5
    ids_T, bytes_T = encode_with_bytes(["abcdefghij\u6728\u6728"], single_bytes())
    assert len(ids_T) == 10 + 2 * 3
    scored = perplexity(model, ids_T[:13], window)  # two windows of letters, and a tail of wide characters
    nll = 0.0
    for window_T in ids_T[:10].split(window):
        with torch.no_grad():
            log_prob_TV = model(window_T[None]).logits[0].double().log_softmax(-1)
        nll -= log_prob_TV[range(4), window_T[1:]].sum().item()
    measured = bits_per_byte(scored.nll, scored.tokens, scored_bytes(bytes_T[:13], window))
    assert measured == pytest.approx(nll / math.log(2) / len("bcdefghi"), rel=1e-5)


def test_the_stage_stores_the_windows_of_c4_and_counts_their_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    llama(vocab_size=256).save_pretrained(tmp_path / "model")
    single_bytes().save_pretrained(tmp_path / "model")
    model = Checkpoint(hash=fingerprint(tmp_path / "model"), folder=str(tmp_path / "model"))
    path = tmp_path / "c4-validation.jsonl"
    path.write_text("".join(json.dumps({"text": "a木"}) + "\n" for _ in range(1100)))
    tokens = tokenize.fn(source=f"c4:{path}", identity="", role="evaluation", model=model, window=5)
    assert (tokens.documents, tokens.windows, tokens.tokens) == (1, 256, 256 * 5)
    assert tokens.scored_bytes == 256 * 4  # a window is "a木 " and begins with "a"
    assert tokens.text_bytes == 1100 * 5 - 1
    with pytest.raises(ValueError, match=r"^evaluation: c4:.* has 5499 tokens, 6000 are needed for one window of 6000"):
        tokenize.fn(source=f"c4:{path}", identity="", role="evaluation", model=model, window=6000)
