"""/metrics and traces: what ran is counted, and nothing says what was asked."""

import json
from contextlib import suppress
from pathlib import Path

import httpx2
import openai
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from tests.server.keeping import IMAGES, begin, chat, drawing, ended, keeping, records
from tests.server.live import Live, served
from unitok import Model
from unitok.server.settings import ServerSettings

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "what is this?"}], "max_tokens": 3}
DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana.json"


def numbers(http: httpx2.Client) -> dict[tuple[str, ...], float]:
    """All numbers, by name and the values of labels, in the order of the labels' names."""
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *dict(sorted(sample.labels.items())).values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_what_ran_is_counted(model: Model):
    with served(model, settings=ServerSettings(max_requests=3)) as live, live.http() as http:
        before = numbers(http)
        answer = http.post(CHAT, json=BODY).json()
        with pytest.raises(openai.InternalServerError):
            live.openai().chat.completions.create(model="default", n=4, **BODY)  # type: ignore[call-overload]
        http.get("/nothing/of/the/kind")
        *_, _ = live.openai().chat.completions.create(model="default", stream=True, **BODY)  # type: ignore[call-overload]
        after = numbers(http)

    def more(*key: str) -> float:
        return after[key] - before.get(key, 0)

    assert more("unitok_requests_total", CHAT, "200") == 2
    assert more("unitok_requests_total", CHAT, "503") == 1
    assert more("unitok_requests_total", "none", "404") == 1
    assert more("unitok_rejected_total") == 1
    tokens = answer["usage"]["completion_tokens"]
    assert more("unitok_tokens_total", "text", "default") == 2 * tokens
    assert more("unitok_time_to_first_token_seconds_count", "default") == 1
    assert more("unitok_request_seconds_count", CHAT) == 3
    assert more("unitok_prompt_tokens_total", "default") == 2 * answer["usage"]["prompt_tokens"]
    assert after["unitok_admission_limit",] == 3
    free = after["unitok_blocks", "default", "free"]
    assert free == model.stats().num_blocks and after["unitok_blocks", "default", "used"] == 0
    assert not any("kind" in part for key in after for part in key[1:])


def test_lines_of_batches_are_counted_as_requests_are(tiny: Model, tmp_path: Path):
    with keeping(tmp_path / "state", tiny) as live, live.http() as http:
        client = live.openai()
        done = ended(client, begin(client, [drawing("a", n=2), drawing("b", n=17)], IMAGES))
        assert (done.status, len(records(client, done.output_file_id))) == ("completed", 1)
        ended(client, begin(client, [chat("a")]))
        lines = numbers(http)
        answer = http.post(IMAGES, json={"prompt": "a cat", "n": 3}).json()
        text = http.post(CHAT, json=chat("a")["body"]).json()["usage"]["completion_tokens"]
        after = numbers(http)
    tokens = answer["usage"]["output_tokens"] // 3
    for told, count, live_ones, texts in ((lines, 2, 0, 1), (after, 5, 3, 2)):
        assert told["unitok_pictures_total", tiny.name] == count
        assert told.get(("unitok_picture_seconds_count", tiny.name), 0) == live_ones
        assert told["unitok_tokens_total", "image", tiny.name] == count * tokens
        assert told["unitok_tokens_total", "text", tiny.name] == texts * text


def test_requests_whose_client_went_away_are_counted(model: Model):
    with served(model) as live, live.http() as http:
        body = {"prompt": "a cat", "n": 8, "stream": True, "partial_images": 3}
        with http.stream("POST", IMAGES, json=body) as answer:
            assert answer.status_code == 200
        with suppress(httpx2.ReadTimeout):
            http.post(IMAGES, json={"prompt": "a cat", "n": 16}, timeout=0.05)
        live.settle()
        http.post(CHAT, json=BODY)
        told = numbers(http)
    assert told["unitok_aborted_total", IMAGES] == 2
    assert ("unitok_aborted_total", CHAT) not in told


def test_the_dashboard_asks_for_numbers_that_exist(live: Live):
    with live.http() as http:
        http.post(CHAT, json={**BODY, "stream": True})
        names = {key[0] for key in numbers(http)}
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
    assert len(asked) >= 10
    for expression in asked:
        words = set(expression.replace("(", " ").replace("[", " ").replace("{", " ").split())
        used = {word.strip(")],") for word in words if word.startswith("unitok_")}
        assert used, expression
        known = names | {n.removesuffix("_count") + "_bucket" for n in names}
        assert used <= known | LATER, expression


# These appear when there is something to count.
LATER = {"unitok_pictures_total", "unitok_picture_seconds_bucket", "unitok_aborted_total"}


def test_a_request_is_a_span_of_the_trace_that_its_headers_name(live: Live):
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    parent = f"00-{'a1' * 16}-{'b2' * 8}-01"
    with live.http() as http:
        http.post(CHAT, json=BODY, headers={"traceparent": parent})
        http.get("/version")
    chat, version = spans.get_finished_spans()
    assert (chat.name, version.name) == (f"POST {CHAT}", "GET /version")
    assert chat.context is not None and f"{chat.context.trace_id:032x}" == "a1" * 16
    assert chat.attributes is not None and chat.attributes["http.response.status_code"] == 200
    assert chat.attributes["gen_ai.request.model"] == "default"
    assert "what is this" not in str(dict(chat.attributes))
