"""What registries, token realms and blob storage answer: contents and rules, no connections."""

from __future__ import annotations

import hashlib
import json
import re
from urllib.parse import parse_qs, quote, urlsplit

from attrs import define, field, frozen
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers

from regproxy.testing.held import Repository
from regproxy.testing.pushing import ScriptedUploads, change_manifest, delete_blob
from regproxy.testing.replies import Reply, content_reply, error_reply, header_value

_UPLOAD = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<session>[^/]*)")
_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>blobs|manifests|tags)/(?P<reference>[^/]+)")


@define(eq=False)
class ScriptedRegistry:
    """A registry as the OCI distribution spec has it.

    Attributes:
        repositories: By canonical name.
        realm: Issues the tokens that are required, if any are.
        storage: Where blobs are redirected to, if they are.
        redirect_status: How they are redirected.
        uploads: Takes pushes; None refuses them.
    """

    repositories: dict[str, Repository] = field(factory=dict)
    realm: TokenRealm | None = None
    storage: ScriptedStorage | None = None
    redirect_status: int = 307
    uploads: ScriptedUploads | None = None

    def repository(self, name: str) -> Repository:
        """The repository of that name, made when it is new."""
        return self.repositories.setdefault(name, Repository())

    def respond(self, method: str, url: str, headers: Headers, body: bytes) -> Reply:
        """The answer to a request."""
        path = urlsplit(url).path
        match = _PATH.fullmatch(path)
        name = match["name"] if match else ""
        if self.realm is not None:
            refusal = self.realm.refusal(header_value(headers, "Authorization"), name)
            if refusal is not None:
                return refusal
        if self.uploads is not None:
            pushed = self._push(self.uploads, method, url, headers, body)
            if pushed is not None:
                return pushed
        if method not in {"GET", "HEAD"}:
            return error_reply(405, "the operation is unsupported")
        if path in {"/v2", "/v2/"}:
            return Reply(200, {"Content-Type": "application/json"}, b"{}")
        if match is None:
            return Reply(404, {"Content-Type": "text/plain"}, b"404 page not found\n")
        repository = self.repositories.get(name, Repository())
        if match["kind"] == "blobs":
            return self._blob(repository, match["reference"], headers)
        if match["kind"] == "manifests":
            return self._manifest(repository, match["reference"], headers)
        return self._tags(name, repository, url)

    def _push(
        self, uploads: ScriptedUploads, method: str, url: str, headers: Headers, body: bytes
    ) -> Reply | None:
        """The answer to a step of a push, None for what is none."""
        match = _UPLOAD.fullmatch(urlsplit(url).path)
        if match is not None:
            if match["session"]:
                return uploads.respond(method, url, headers, body)
            source = parse_qs(urlsplit(url).query).get("from", [""])[0]
            name = match["name"]
            return uploads.start(name, self.repository(name), url, self.repository(source))
        match = _PATH.fullmatch(urlsplit(url).path)
        if match is None or method not in {"PUT", "DELETE"}:
            return None
        name, reference = match["name"], match["reference"]
        if match["kind"] == "manifests":
            media_type = header_value(headers, "Content-Type")
            return change_manifest(method, name, self.repository(name), reference, media_type, body)
        return delete_blob(self.repository(name), reference) if method == "DELETE" else None

    def _blob(self, repository: Repository, digest: str, asked: Headers) -> Reply:
        data = repository.blobs.get(digest)
        if data is None:
            return error_reply(404, "blob unknown to registry", "BLOB_UNKNOWN")
        if self.storage is not None:
            location = self.storage.sign(digest, data)
            body = b'<a href="%b">Temporary Redirect</a>.\n' % location.encode()
            return Reply(self.redirect_status, {"Location": location}, body)
        return content_reply(data, _content_headers(digest, "application/octet-stream"), asked)

    def _manifest(self, repository: Repository, reference: str, asked: Headers) -> Reply:
        digests = [reference] if ":" in reference else repository.tags.get(reference, [])
        for digest in digests:
            data, media_type = repository.manifests.get(digest, (b"", ""))
            if media_type and (":" in reference or _accepts(asked, media_type)):
                return content_reply(data, _content_headers(digest, media_type), asked)
        return error_reply(404, "manifest unknown", "MANIFEST_UNKNOWN")

    @staticmethod
    def _tags(name: str, repository: Repository, url: str) -> Reply:
        if not repository.manifests:
            return error_reply(404, "repository name not known to registry", "NAME_UNKNOWN")
        query = parse_qs(urlsplit(url).query)
        last = query.get("last", [""])[0]
        tags = sorted(tag for tag in repository.tags if tag > last)
        headers = {"Content-Type": "application/json"}
        if "n" in query:
            count = int(query["n"][0])
            if count < len(tags):
                tags = tags[:count]
                target = f"/v2/{name}/tags/list?last={quote(tags[-1])}&n={count}"
                headers["Link"] = f'<{target}>; rel="next"'
        return Reply(200, headers, json.dumps({"name": name, "tags": tags}).encode())


@define(eq=False)
class TokenRealm:
    """Gives a token to anyone who asks, for the scopes asked for, and says which it gave.

    Attributes:
        clock: Tells when tokens expire.
        url: The realm, as challenges name it.
        service: The service, as challenges name it.
        lifetime: Seconds until a token expires.
        issued: The scopes and the end (in the clock's seconds) of each token.
    """

    clock: Clock
    url: str
    service: str
    lifetime: float
    issued: dict[str, tuple[frozenset[str], float]] = field(factory=dict)

    def respond(self, method: str, url: str, headers: Headers, body: bytes) -> Reply:
        """The answer to a request for a token."""
        if method != "GET":
            return error_reply(405, "only GET")
        scopes = " ".join(parse_qs(urlsplit(url).query).get("scope", [])).split()
        token = f"token-{len(self.issued) + 1}"
        self.issued[token] = (frozenset(scopes), self.clock.seconds() + self.lifetime)
        answer = {"token": token, "access_token": token, "expires_in": int(self.lifetime)}
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def refusal(self, authorization: str, repository: str) -> Reply | None:
        """The 401 that *authorization* gets for a pull of *repository*, None when it suffices."""
        scope = f"repository:{repository}:pull" if repository else ""
        scheme, _, token = authorization.partition(" ")
        scopes, until = self.issued.get(token, (frozenset(), 0.0))
        error = ""
        if scheme.lower() == "bearer":
            if self.clock.seconds() >= until:
                error = "invalid_token"
            elif scope and scope not in scopes:
                error = "insufficient_scope"
            else:
                return None
        challenge = f'Bearer realm="{self.url}",service="{self.service}"'
        challenge += f',scope="{scope}"' if scope else ""
        challenge += f',error="{error}"' if error else ""
        return error_reply(401, "authentication required", headers={"WWW-Authenticate": challenge})


@define(eq=False)
class ScriptedStorage:
    """An object store or CDN: serves signed URLs, each for a while.

    Like S3 it refuses requests that bring a credential besides the signature.

    Attributes:
        clock: Tells when signatures expire.
        origin: Where it is.
        lifetime: Seconds until a signature expires.
    """

    clock: Clock
    origin: str
    lifetime: float
    _objects: dict[str, bytes] = field(factory=dict)
    _signatures: dict[str, tuple[str, float]] = field(factory=dict)

    def sign(self, digest: str, data: bytes) -> str:
        """A new URL for *data*; its path is ``/data/DIGEST``."""
        self._objects[digest] = data
        signature = f"signature-{len(self._signatures) + 1}"
        self._signatures[signature] = (digest, self.clock.seconds() + self.lifetime)
        return f"{self.origin}/data/{digest}?signature={signature}"

    def respond(self, method: str, url: str, headers: Headers, body: bytes) -> Reply:
        """The answer to a request."""
        if headers.hasHeader("Authorization"):
            return _storage_error(400, "InvalidArgument")
        parts = urlsplit(url)
        signature = parse_qs(parts.query).get("signature", [""])[0]
        digest, until = self._signatures.get(signature, ("", 0.0))
        if method not in {"GET", "HEAD"} or parts.path != f"/data/{digest}":
            return _storage_error(403, "SignatureDoesNotMatch")
        if self.clock.seconds() >= until:
            return _storage_error(403, "AccessDenied")
        data = self._objects[digest]
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        return content_reply(
            data, {"Content-Type": "application/octet-stream", "ETag": etag}, headers
        )


@frozen
class Page:
    """The same answer whatever is asked.

    Attributes:
        reply: The answer.
    """

    reply: Reply

    def respond(self, method: str, url: str, headers: Headers, body: bytes) -> Reply:
        """The answer."""
        return self.reply


def _content_headers(digest: str, media_type: str) -> dict[str, str]:
    return {
        "Content-Type": media_type,
        "Docker-Content-Digest": digest,
        "Docker-Distribution-Api-Version": "registry/2.0",
        "ETag": f'"{digest}"',
    }


def _accepts(asked: Headers, media_type: str) -> bool:
    """Whether an Accept header admits a media type (weights other than 0 make no difference)."""
    value = header_value(asked, "Accept")
    if not value:
        return True
    for item in value.split(","):
        pattern, _, parameters = item.strip().partition(";")
        if "q=0" in parameters.replace(" ", "").split(";"):
            continue
        if pattern.strip() in {"*/*", "application/*", media_type}:
            return True
    return False


def _storage_error(status: int, code: str) -> Reply:
    body = f"<Error><Code>{code}</Code></Error>".encode()
    return Reply(status, {"Content-Type": "application/xml"}, body)
