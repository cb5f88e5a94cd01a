"""The packed model as MLflow loads it: this file is stored beside every registered version, and run when it is loaded.

MLflow reads a model "from code": no object is pickled. Beside this file lie the packed checkpoint and the few modules
that unpack it, so a process that has only MLflow, torch, transformers and safetensors can load and run it:

    mlflow.pyfunc.load_model("models:/espalier-builtin@best").predict(["Once upon a time"])
"""

from pathlib import Path
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class PackedModel(PythonModel):
    """Continues prompts greedily. `unwrap_python_model()` gives access to `.model` and `.tokenizer`."""

    def load_context(self, context: Any) -> None:
        from transformers import AutoTokenizer

        from tasks.prune.pack import load_packed

        folder = Path(context.artifacts["packed"])
        self.model = load_packed(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def predict(self, context: Any, model_input: list[str], params: dict[str, Any] | None = None) -> list[str]:
        """The continuation of each prompt. `params` are those of `generate`, such as {"max_new_tokens": 100}."""
        continuations = []
        for prompt in model_input:
            inputs = self.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
            choices = {"max_new_tokens": 40, "do_sample": False} | (params or {})
            [ids] = self.model.generate(**inputs, **choices)
            continuations.append(
                str(self.tokenizer.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True))
            )
        return continuations


set_model(PackedModel())
