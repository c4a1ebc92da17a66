//! How fast moves may copy: changing it and asking for it, while moves are under way or not.

use crate::ids::NodeId;
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// A new rate, or only a question for those that hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleMovesRequest {
    /// The rate to change; `None` changes nothing.
    pub change: Option<ThrottleChange>,
}

/// One rate, from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleChange {
    /// What this broker receives; `None` for all brokers together.
    pub broker: Option<NodeId>,
    /// Bytes a second; `None` for no limit.
    pub bytes_per_s: Option<u64>,
}

/// The rates that hold, as the answering broker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThrottleMovesResponse {
    /// What all brokers together may receive in a second; `None` where there is no limit.
    pub cluster: Option<u64>,
    /// What single brokers may receive in a second.
    pub brokers: Vec<(NodeId, u64)>,
}

impl ThrottleMovesRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.optional(self.change, |writer, change| {
            writer.optional(change.broker, |writer, node| writer.u32(node.0));
            writer.optional(change.bytes_per_s, Writer::u64);
        });
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ThrottleMovesRequest, DecodeError> {
        coding::open_request(reader, "a request to throttle moves")?;
        let change = |reader: &mut Reader<'_>| {
            Ok(ThrottleChange {
                broker: reader.optional("a broker", coding::node)?,
                bytes_per_s: reader.optional("a rate", Reader::u64)?,
            })
        };
        let request = ThrottleMovesRequest { change: reader.optional("a change", change)? };
        reader.tagged_fields()?;
        Ok(request)
    }
}

impl ThrottleMovesResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.optional(self.cluster, Writer::u64);
        writer.list(&self.brokers, |writer, (node, rate)| {
            writer.u32(node.0);
            writer.u64(*rate);
        });
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ThrottleMovesResponse, DecodeError> {
        reader.within("the throttle of moves");
        let rate = |reader: &mut Reader<'_>| Ok((coding::node(reader)?, reader.u64()?));
        let response = ThrottleMovesResponse {
            cluster: reader.optional("a rate", Reader::u64)?,
            brokers: reader.list("brokers", 12, rate)?,
        };
        reader.tagged_fields()?;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_were_written() {
        let change = |broker, bytes_per_s| Some(ThrottleChange { broker, bytes_per_s });
        for change in [None, change(None, Some(7)), change(Some(NodeId(4)), None)] {
            let request = ThrottleMovesRequest { change };
            let mut writer = Writer::new();
            request.encode(&mut writer);
            let bytes = writer.finish();
            assert_eq!(ThrottleMovesRequest::decode(&mut Reader::new(&bytes)), Ok(request));
        }
        let response = ThrottleMovesResponse { cluster: Some(9), brokers: vec![(NodeId(2), 5)] };
        let mut writer = Writer::new();
        response.encode(&mut writer);
        let bytes = writer.finish();
        assert_eq!(ThrottleMovesResponse::decode(&mut Reader::new(&bytes)), Ok(response));
    }
}
