"""What one writes by hand: a FastAPI handler over sentence-transformers' ONNX int8 backend.

Started by benchmarks/serve.py with an interpreter that has fastapi, uvicorn and sentence-transformers[onnx]:

    PYTHON benchmarks/serve_handler.py MODEL_DIRECTORY PORT SCRATCH
"""

import shutil
import sys
from pathlib import Path


def main() -> None:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    source, port, scratch = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    model_directory = scratch / "sentence-transformers"
    if not model_directory.exists():
        shutil.copytree(source, model_directory)
        export_dynamic_quantized_onnx_model(
            SentenceTransformer(str(model_directory), backend="onnx"), "avx512_vnni", str(model_directory)
        )
    name = {"file_name": "onnx/model_qint8_avx512_vnni.onnx"}
    model = SentenceTransformer(str(model_directory), backend="onnx", model_kwargs=name)
    app = FastAPI()

    class Asked(BaseModel):
        inputs: str | list[str]

    @app.post("/embed")
    def embed(asked: Asked) -> list[list[float]]:
        texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        return model.encode(texts, normalize_embeddings=True).tolist()

    uvicorn.run(app, port=port, log_level="warning")


if __name__ == "__main__":
    main()
