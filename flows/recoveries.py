"""What a flow is told of recovery: how much to train, at what rate, on which texts, which weights, towards what."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from flows.methods import Choice, choices_of, parse_choice
from flows.texts import OfTexts
from tasks.data.sources import parse_source
from tasks.recover.checkpoint import Training, usual_rate
from tasks.recover.distil import Distillation
from tasks.recover.lora import LoRA
from tasks.recover.recovery import Recovery
from tasks.recover.texts import WeightedText, check_texts, parse_texts

ADAPTER_CHOICES = choices_of({"lora": LoRA})
DISTIL_CHOICES = choices_of({"distil": Distillation})
if TYPE_CHECKING:
    LoRAChoice = Choice
    DistilChoice = Choice
else:
    LoRAChoice = ADAPTER_CHOICES["lora"]
    DistilChoice = DISTIL_CHOICES["distil"]


def _parsed(given: Any) -> Any:
    """Words become texts; what is no word is for pydantic to check."""
    words = [given] if isinstance(given, str) else given
    if not isinstance(words, list | tuple):
        return words
    return tuple(text for word in words for text in (parse_texts(word) if isinstance(word, str) else (word,)))


def _known(texts: tuple[WeightedText, ...]) -> tuple[WeightedText, ...]:
    known = tuple(WeightedText(source=str(parse_source(text.source)), weight=text.weight) for text in texts)
    check_texts(known)
    return known


Texts = Annotated[tuple[WeightedText, ...], BeforeValidator(_parsed), AfterValidator(_known)]


class Recovering(OfTexts):
    """A flow that can train the model it has pruned or cut. Without `recover_tokens` nothing is trained."""

    recover_tokens: int = Field(0, ge=0, lt=1 << 63, description="train what is left on so many tokens")
    recover_rate: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="the learning rate at its peak; by default 2e-5, of LoRA 2e-4"
    )
    recover_text: Texts = Field((), description="mixed by their weights; by default the text that calibrates")
    recover_batch: int = Field(16, ge=1, description="windows of a step")
    recover_at_once: int | None = Field(None, ge=1, description="windows of one forward; by default all of the batch")
    recover_recompute: bool = Field(False, description="keep no activations: less memory, more time")
    recover: Literal["full"] | LoRAChoice | None = Field(None, description="all weights, which is usual, or LoRA")
    distil: DistilChoice | None = Field(None, description="learn from the dense model beside the text")

    @model_validator(mode="after")
    def _what_is_said_of_recovery_is_used(self) -> Self:
        if not self.recover_tokens:
            for name in (name for name in Recovering.model_fields if name not in OfTexts.model_fields):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name}: nothing is trained; give recover_tokens, or leave it out")
        if self.recover_batch % (self.recover_at_once or 1):
            given = f"recover_at_once: {self.recover_at_once} given"
            raise ValueError(f"{given}, valid is what divides the {self.recover_batch} windows of recover_batch")
        return self

    def training(self) -> Training | None:
        """How it trains; None where it does not."""
        if not self.recover_tokens:
            return None
        lora = self.recover.build() if isinstance(self.recover, Choice) else None
        rate = usual_rate(lora) if self.recover_rate is None else self.recover_rate
        return Training(
            recovery=Recovery(
                tokens=self.recover_tokens,
                rate=rate,
                batch=self.recover_batch,
                at_once=self.recover_at_once,
                recompute=self.recover_recompute,
                seed=self.seed,
            ),
            lora=lora,
            distil=None if self.distil is None else self.distil.build(),
        )

    def texts(self) -> tuple[WeightedText, ...]:
        """What it trains on."""
        return self.recover_text or (WeightedText(source=self.calibration),)

    def recovery_label(self) -> tuple[str, ...]:
        """What the rows call it: `recover,tokens=65536`, `lora,rank=8`, `distil`."""
        if not self.recover_tokens:
            return ()
        how = [each.label for each in (self.recover, self.distil) if isinstance(each, Choice)]
        return (f"recover,tokens={self.recover_tokens}", *how)

    def recovery_words(self) -> list[str]:
        """The words of a command line that say it."""
        words = self._changed("recover_tokens", "recover_rate", "recover_batch", "recover_at_once", "recover")
        words += ["--recover-recompute"] if self.recover_recompute else []
        for text in self.recover_text:
            words += ["--recover-text", str(text)]
        return words + (["--distil", *str(self.distil).split(",", 1)[1:]] if self.distil is not None else [])


def parse_recover(text: str) -> Choice | Literal["full"]:
    """`full`, `lora` or `lora,rank=8,alpha=16,linears=q_proj+v_proj`. ValueError names what is valid."""
    return "full" if text == "full" else parse_choice("recover", text, ADAPTER_CHOICES, beside=("full",))


def parse_distil(text: str) -> Choice:
    """The hyper-parameters alone: `temperature=2,soft=1,hard=0.5`, or nothing."""
    return parse_choice("distil", ",".join(["distil", *text.split()]), DISTIL_CHOICES)
