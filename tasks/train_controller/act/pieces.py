"""From tokens to text while they are written: in pieces of whole characters, up to a stop token or a stop string."""

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

BROKEN = "\N{REPLACEMENT CHARACTER}"  # what bytes decode to that are not, or not yet, a character
CONTEXT_TOKENS = 5  # of the prompt, decoded before the answer: some tokenizers drop the space before a first word


class Pieces:
    """The text of an answer, piece by piece. Special tokens are no text.

    A piece waits while its last character lacks bytes, and while it may be the beginning of a stop string. All pieces
    joined are the text of all tokens, up to what stops it, which is not in it.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt_ids: Sequence[int],
        *,
        stop: str | Sequence[str] = (),
        stop_ids: Collection[int] = (),
    ) -> None:
        """Raises ValueError for a stop string that is empty."""
        self._stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in self._stop:
            raise ValueError("stop: '' given, valid is a text of at least one character")
        self.text = ""  # of all pieces so far
        self.stopped = False  # whether a stop token or a stop string has come
        self._tokenizer, self._stop_ids = tokenizer, frozenset(stop_ids)
        self._ids = self._whole([*prompt_ids][-CONTEXT_TOKENS:])  # that became text, and those after them that have not
        self._read = len(self._ids)  # how many of them became text
        self._waiting = ""

    def add(self, token: int) -> str:
        """What is certain now that this token has come, often nothing."""
        if token in self._stop_ids:
            self.stopped = True
            return self.rest()
        self._ids.append(token)
        text = self._unread()
        if not text or text.endswith(BROKEN):
            return ""
        self._ids, self._read = self._ids[self._read :], len(self._ids) - self._read
        return self._release(text)

    def rest(self) -> str:
        """What still waits, when no token comes any more."""
        piece = self._release(self._unread())
        self.text += self._waiting
        piece, self._waiting = piece + self._waiting, ""
        self._read = len(self._ids)
        return piece

    def _whole(self, ids: list[int]) -> list[int]:
        """The tokens up to their last whole character: the answer's bytes must not complete one of the prompt's."""
        while ids and self._decode(ids).endswith(BROKEN):
            ids = ids[:-1]
        return ids

    def _unread(self) -> str:
        """The text of the tokens that have not become text, as it is behind those before them."""
        return self._decode(self._ids)[len(self._decode(self._ids[: self._read])) :]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _release(self, text: str) -> str:
        """Add to what waits, and give out of it what can be no part of a stop string."""
        text, self._waiting = self._waiting + text, ""
        found = [text.index(each) for each in self._stop if each in text]
        if found:
            self.stopped, piece = True, text[: min(found)]
        else:
            starts = (start for start in range(len(text)) if self._may_begin(text[start:]))
            certain = next(starts, len(text))
            piece, self._waiting = text[:certain], text[certain:]
        self.text += piece
        return piece

    def _may_begin(self, end: str) -> bool:
        return any(each.startswith(end) for each in self._stop)
