//! The calls by which people look into a running cluster and change how it behaves.

use bytes::Bytes;
use highwater_protocol::native::frame::{ApiKey, CorrelationId};
use highwater_protocol::native::inspect::InspectReplicaRequest;
use highwater_protocol::wire::DecodeError;

use super::client_calls::{Answering, Calls, whole};

impl Calls {
    /// Begins one of them.
    pub(super) fn insight(
        &self,
        api: ApiKey,
        correlation: CorrelationId,
        body: &Bytes,
    ) -> Result<Answering, DecodeError> {
        assert_eq!(api, ApiKey::InspectReplica, "the others have their own roads");
        let calls = self.clone();
        let request = whole(body, InspectReplicaRequest::decode)?;
        Ok(Box::pin(async move {
            let result = calls.api.inspect_replica(request).await;
            calls.answer(correlation, result, |answer, writer| answer.encode(writer))
        }))
    }
}
