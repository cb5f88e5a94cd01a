"""The stored model as MLflow loads it: this file lies beside every registered version, and is run when it is loaded.

MLflow reads a model "from code": no object is pickled. Beside this file lies the checkpoint: a packed one with the few
modules that unpack it, or a folder that transformers loads, with the modeling file that was written for it where it has
one. Of sparse inputs it is what is loaded upon the dense model, with the modules that do; the dense model is not copied
but read where it was, or where `load_model(…, model_config={"dense": folder})` says, and has to be the same. So a
process that has only MLflow, torch, transformers and safetensors can load and run it:

    mlflow.pyfunc.load_model("models:/<name>@best").predict(["Once upon a time"])
"""

from pathlib import Path
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

NEW_TOKENS = 40


class StoredModel(PythonModel):
    """Continues prompts greedily by NEW_TOKENS; for all else, `unwrap_python_model()` has `.model` and `.tokenizer`."""

    model: Any  # generate() is not typed

    def load_context(self, context: Any) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if "sparse_inputs" in context.artifacts:
            from tasks.model.load import fingerprint, load_model
            from tasks.prune.activation.folder import load_sparse
            from tasks.prune.activation.methods import METHODS

            folder = Path(context.model_config["dense"])
            self.model = load_model(folder)
            load_sparse(self.model, fingerprint(folder), Path(context.artifacts["sparse_inputs"]), METHODS)
        elif "packed" in context.artifacts:
            from tasks.prune.pack import load_packed

            folder = Path(context.artifacts["packed"])
            self.model = load_packed(folder).eval()
        else:
            folder = Path(context.artifacts["folder"])
            written_for_it = (folder / "modeling_per_layer.py").is_file()
            self.model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=written_for_it).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)

    def predict(self, context: Any, model_input: list[str]) -> list[str]:  # type: ignore[override]
        """The continuation of each prompt, without the prompt."""
        continuations = []
        for prompt in model_input:
            inputs = self.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
            [ids] = self.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
            new_ids = ids[inputs["input_ids"].shape[1] :]
            continuations.append(str(self.tokenizer.decode(new_ids, skip_special_tokens=True)))
        return continuations


set_model(StoredModel())
