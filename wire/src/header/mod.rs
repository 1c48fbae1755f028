//! Typed request and response headers, grouped as the protocol groups them: a struct for each, named after its code
//! (`PULL_MESSAGE` has `PullMessageRequest` and `PullMessageResponse`), with the fields of the wire in snake case.
