"""Holds answers against the OpenAPI document: whatever the server says, the document has said before."""

from __future__ import annotations

import re
from copy import deepcopy
from http import HTTPStatus
from typing import Any

import requests
from jsonschema import Draft202012Validator

NO_OPERATION = frozenset({401, 404, 405, 429})
"""What a call of something that is not in the document may be answered with."""
UNDOCUMENTED = frozenset({"/openapi.json", "/docs"})
"""What shows the document is not in it; neither are the files of /docs/."""


class Contract:
    """The document of one server."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._paths = document["paths"]
        self._components = _closed(document["components"])
        self._patterns = [
            (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)) + "/?"), path)
            # the longest first: /session/heartbeat is no session
            for path in sorted(self._paths, key=lambda path: ("{" in path, path))
        ]

    def check(self, method: str, url_path: str, response: requests.Response) -> None:
        """Fail when the document does not know this answer to this call."""
        where = f"{method} {url_path}: {response.status_code} {response.text[:300]}"
        assert response.headers.get("X-Request-ID"), where
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            self._check_schema({"$ref": "#/components/schemas/Error"}, response.json(), where)
        operation = self.operation(method, url_path)
        if operation is None:
            path = url_path.split("?", maxsplit=1)[0]
            known = response.status_code in NO_OPERATION or path in UNDOCUMENTED or path.startswith("/docs/")
            assert known or method in ("HEAD", "OPTIONS"), where
            return
        described = operation["responses"].get(str(response.status_code))
        assert described is not None, f"not in the document: {where}"
        if response.status_code == HTTPStatus.NO_CONTENT or not described.get("content"):
            assert response.content == b"", where
            return
        media_type = response.headers["Content-Type"].split(";")[0]
        assert media_type in described["content"], f"{media_type} is not in the document: {where}"
        content = described["content"][media_type]
        if media_type == "application/json":
            answer = response.json()
            self._check_schema(content["schema"], answer, where)
            if response.status_code >= HTTPStatus.BAD_REQUEST:
                assert answer["code"] in content["examples"], f"the document has no such code here: {where}"

    def operation(self, method: str, url_path: str) -> dict[str, Any] | None:
        """The operation that a call is, None when it is none."""
        path = url_path.split("?", maxsplit=1)[0]
        for pattern, template in self._patterns:
            if pattern.fullmatch(path):
                found: dict[str, Any] | None = self._paths[template].get(method.lower())
                return found
        return None

    def check_example(self, schema: dict[str, Any], value: object, where: str) -> None:
        """Fail when an example is not what its schema says."""
        self._check_schema(schema, value, where)

    def _check_schema(self, schema: dict[str, Any], value: object, where: str) -> None:
        validator = Draft202012Validator({**schema, "components": self._components})
        problems = [f"{'/'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(value)]
        assert not problems, f"{problems} in {where}"


def _closed(components: dict[str, Any]) -> dict[str, Any]:
    """The components with answers that may have no fields but the documented ones."""
    closed = deepcopy(components)
    for schema in closed["schemas"].values():
        schema["additionalProperties"] = False
    return closed
