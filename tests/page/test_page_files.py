"""The files of the page: what anybody may read, with which headers."""

import re

import pytest
from playwright.sync_api import expect

from tests.page.conftest import NewPage
from tests.page.visit import dialog, painted, send
from tests.server.live import KEYS, Live
from unitok.server.page_files import FOLDER


def test_the_page_has_a_strict_policy_and_needs_no_key(locked: Live):
    with locked.http(None) as http:
        page = http.get("/")
        assert page.status_code == 200
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers.get_list("x-content-type-options") == ["nosniff"]
        assert page.headers["cache-control"] == "no-cache"
        known = {"if-none-match": page.headers["etag"]}
        assert http.get("/", headers=known).status_code == 304
        assert http.head("/").content == b""


def test_assets_are_kept_for_ever_as_their_names_have_their_hash(locked: Live):
    with locked.http(None) as http:
        names = re.findall(r'"\./(assets/[^"]+)"', http.get("/").text)
        assert len(names) == 3
        for name in names:
            response = http.get(f"/{name}")
            assert response.content == (FOLDER / name).read_bytes()
            assert "immutable" in response.headers["cache-control"]
            assert "content-security-policy" in response.headers


@pytest.mark.parametrize(
    "path",
    [
        "/assets/nothing.js",
        "/assets/../index.html",
        "/assets/..%2findex.html",
        "/assets/..%2f..%2f..%2f..%2fpyproject.toml",
        "/assets/%2e%2e/page_files.py",
        "/assets//etc/passwd",
        "/assets/..\\page_files.py",
        "/assets/licenses.md",
        "/assets/",
    ],
)
def test_nothing_else_of_the_disk_can_be_read(locked: Live, path: str):
    with locked.http(None) as http:
        response = http.get(f"{locked.url}{path}")
    assert response.status_code in (401, 404)
    assert response.json()["error"]["message"]


def test_no_part_of_the_api_hides_behind_the_assets(locked: Live):
    with locked.http(None) as http:
        for path in ("/assets/../v1/models", "/assets/..%2fv1/models", "/assets%2f../v1/models"):
            assert http.get(f"{locked.url}{path}").status_code in (401, 404)
        assert http.get("/v1/queue").status_code == 401


def test_the_queue_is_told(live: Live):
    with live.http() as http:
        assert http.get("/v1/queue").json() == {"object": "queue", "running": 0, "waiting": 0}


def test_the_page_asks_for_a_key_and_keeps_it_in_the_tab(new_page: NewPage, locked: Live):
    page = new_page(locked.url)
    asked = dialog(page, "This server needs a key")
    asked.get_by_label("API key").fill("wrong-key-of-the-tests")
    asked.get_by_role("button", name="Use this key").click()
    expect(asked).to_contain_text("this API key is not known")
    asked.get_by_label("API key").fill(KEYS[0])
    asked.get_by_role("button", name="Use this key").click()
    painted(send(page, "Draw", "a dog"))
    assert page.evaluate("Object.keys(localStorage)") == []
    page.reload()
    painted(send(page, "Draw", "a cat"))
    locked.settle()


def test_without_a_key_the_page_says_why_it_does_nothing(new_page: NewPage, locked: Live):
    page = new_page(locked.url)
    page.keyboard.press("Escape")
    expect(page.get_by_role("alert")).to_contain_text("give an API key")
    page.get_by_role("button", name="Try again").click()
    expect(dialog(page, "This server needs a key")).to_be_visible()
