"""What registries answer to pushes."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from attrs import define, field
from twisted.web.http_headers import Headers

from regproxy.model.digest import Digest
from regproxy.testing.held import Repository
from regproxy.testing.replies import Reply, error_reply

LOCATION = "/v2/{repository}/blobs/uploads/{session}?_state=of-{session}"
"""Where a registry says that an upload goes on."""


@define(eq=False)
class ScriptedUploads:
    """Uploads of blobs, wherever the registry sends its clients for them.

    Attributes:
        location: The Location of an upload, with ``{repository}`` and ``{session}`` in it; the
            session is the last component of its path.
        sessions: The repository and the bytes so far, by session.
    """

    location: str = LOCATION
    sessions: dict[str, tuple[Repository, bytearray]] = field(factory=dict)
    _names: dict[str, str] = field(factory=dict)

    def start(self, name: str, repository: Repository, url: str, source: Repository) -> Reply:
        """The answer to a POST.

        Args:
            name: The repository's name.
            repository: Gets the blob.
            url: Its query may ask for a mount.
            source: What the query names as ``from``.
        """
        query = parse_qs(urlsplit(url).query)
        digest = query.get("mount", [""])[0]
        if digest in source.blobs:
            repository.blobs[digest] = source.blobs[digest]
            return _created(f"/v2/{name}/blobs/{digest}", digest)
        session = f"session-{len(self._names) + 1}"
        self.sessions[session] = (repository, bytearray())
        self._names[session] = name
        return self._go_on(202, session, 0)

    def respond(self, method: str, url: str, headers: Headers, body: bytes) -> Reply:
        """The answer to a later step."""
        parts = urlsplit(url)
        session = parts.path.rpartition("/")[2]
        if session not in self.sessions:
            return error_reply(404, "upload unknown", "BLOB_UPLOAD_UNKNOWN")
        repository, data = self.sessions[session]
        if method == "GET":
            return self._go_on(204, session, len(data))
        if method == "DELETE":
            del self.sessions[session]
            return Reply(204)
        data += body
        if method == "PATCH":
            return self._go_on(202, session, len(data))
        digest = parse_qs(parts.query).get("digest", [""])[0]
        if str(Digest.of(bytes(data))) != digest:
            return error_reply(400, "digest invalid", "DIGEST_INVALID")
        repository.blobs[digest] = bytes(data)
        del self.sessions[session]
        return _created(f"/v2/{self._names[session]}/blobs/{digest}", digest)

    def _go_on(self, status: int, session: str, length: int) -> Reply:
        location = self.location.format(repository=self._names[session], session=session)
        return Reply(
            status,
            {
                "Location": location,
                "Docker-Upload-UUID": session,
                "Range": f"0-{max(0, length - 1)}",
                "OCI-Chunk-Min-Length": "1024",
            },
        )


def change_manifest(
    method: str, name: str, repository: Repository, reference: str, media_type: str, body: bytes
) -> Reply:
    """The answer to a PUT or DELETE of a manifest.

    Args:
        method: One of the two.
        name: The repository's name.
        repository: Is changed.
        reference: A tag or digest.
        media_type: Of the manifest that is put.
        body: The manifest that is put.
    """
    if method == "DELETE":
        if repository.tags.pop(reference, None) or repository.manifests.pop(reference, None):
            return Reply(202)
        return error_reply(404, "manifest unknown", "MANIFEST_UNKNOWN")
    digest = str(Digest.of(body))
    repository.manifests[digest] = (body, media_type)
    if ":" not in reference:
        repository.tags[reference] = [digest]
    return _created(f"/v2/{name}/manifests/{digest}", digest)


def delete_blob(repository: Repository, digest: str) -> Reply:
    """The answer to a DELETE of a blob."""
    if repository.blobs.pop(digest, None) is None:
        return error_reply(404, "blob unknown to registry", "BLOB_UNKNOWN")
    return Reply(202)


def _created(location: str, digest: str) -> Reply:
    return Reply(201, {"Location": location, "Docker-Content-Digest": digest})
