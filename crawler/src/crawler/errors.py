"""What can go wrong between a document and its passages.

    CrawlError
    + UnsupportedFormat      no format accepts the file
    + UnreadableDocument     broken, encrypted, empty of text, or refused by a limit
    + DocumentTooLarge       over a limit of bytes, pages or chunks
    + FilterError            a search filter that cannot be used
    + FetchFailed            an address did not answer with a document
      + FetchRefused         it is not a public address
    + EmbeddingFailed        the embedding model refused or could not be reached
    + ModelFailed            a chat model that the pipeline asks refused or could not be reached
    + StoreError             the vector store
      + StoreUnavailable     it cannot be reached (or is starting)
      + StoreRefused         it answered, and said no
      + StoreMismatch        a collection that others made is not as the settings say
      + StoreCapability      it cannot do what the collection needs
      + StoreDenied          its own rights do not allow this to the caller
      + CredentialRefused    it does not accept the caller's credential
    ConfigError              settings that cannot be used; lists every mistake

A class's docstring is its public message unless one is given; the cause is kept as
``__cause__`` for the log and is never shown.
"""

from __future__ import annotations


class CrawlError(Exception):
    """The document could not be processed."""

    code = "crawl_failed"
    transient = False
    """True when the same document may succeed later without being changed."""

    def __init__(self, message: str | None = None, *, param: str | None = None) -> None:
        self.message = message or " ".join((type(self).__doc__ or "").split())
        self.param = param
        super().__init__(self.message)


class UnsupportedFormat(CrawlError):
    """This type of file is not supported."""

    code = "unsupported_format"


class UnreadableDocument(CrawlError):
    """The document could not be read. Open it in its own program, save it again and upload that."""

    code = "unreadable_document"


class DocumentTooLarge(CrawlError):
    """The document is larger than this server accepts. Split it and upload the parts."""

    code = "document_too_large"


class FetchFailed(CrawlError):
    """The address could not be fetched. Open it in a browser, or upload the file itself."""

    code = "fetch_failed"


class FetchRefused(FetchFailed):
    """Only public http and https addresses are fetched. Upload the file itself."""

    code = "fetch_refused"


class EmbeddingFailed(CrawlError):
    """The embedding model did not answer. The document will be tried again."""

    code = "embedding_failed"
    transient = True


class ModelFailed(CrawlError):
    """A model that this pipeline asks did not answer. The document will be tried again."""

    code = "model_failed"
    transient = True


class FilterError(CrawlError):
    """The filter cannot be used."""

    code = "invalid_filter"


class StoreError(CrawlError):
    """The vector store could not do this."""

    code = "store_error"


class StoreUnavailable(StoreError):
    """The vector store is not available at the moment. Try again in a few seconds."""

    code = "store_unavailable"
    transient = True


class StoreRefused(StoreError):
    """The vector store refused this."""

    code = "store_refused"


class StoreMismatch(StoreError):
    """This collection is not as the settings say it is. Tell the operator."""

    code = "store_mismatch"


class StoreDenied(StoreError):
    """The vector store's own rights do not allow you to do this. Ask whoever manages its roles."""

    code = "store_denied"


class CredentialRefused(StoreError):
    """The vector store does not accept your credential for it. Check its user and password, and sign in again
    where it comes with your token."""

    code = "store_credential_refused"


class StoreCapability(StoreError):
    """The vector store cannot do what this collection needs."""

    code = "store_capability"


class ConfigError(Exception):
    """Settings that cannot be used; ``mistakes`` lists all of them, one readable line each."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        super().__init__("\n".join(mistakes))
