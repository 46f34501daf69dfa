"""POST /predict."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server.context import AppContext, Reading
from server.encoding.encoding import encode
from server.encoding.prepare import want_pairs
from server.encoding.respond import add_posts
from server.encoding.values import Values, activator
from server.generation.respond import json_response, receive
from server.schema.encoded import Prediction
from server.schema.predict import PredictRequest

PATHS = ("/predict",)


def predict_routes(context: AppContext, reading: Reading) -> APIRouter:
    router = APIRouter()
    labels = reading.config.labels

    async def predict(http: Request) -> Response:
        """The labels of each text or pair and their scores, the likeliest first, as a bare list."""
        request = await receive(context, http, PredictRequest)
        context.check_model(request.model)
        wanted = await want_pairs(context, reading, request, "inputs", request.inputs.texts)
        activate = activator(reading.config, False if request.raw_scores else None)
        scores = await encode(context, http, wanted, activate)
        predictions = [_predictions(labels, values) for values in scores]
        return json_response(predictions if request.inputs.many else predictions[0])

    add_posts(router, PATHS, PredictRequest, predict)
    return router


def _predictions(labels: tuple[str, ...], scores: Values) -> list[Prediction]:
    found = [
        Prediction(score=score, label=label) for label, score in zip(labels, scores.tolist(), strict=True)
    ]
    return sorted(found, key=lambda prediction: -prediction.score)
