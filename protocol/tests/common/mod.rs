//! What the tests of messages share.

/// Round-trips a message through `encode` and `decode`, then decodes every shorter prefix.
macro_rules! comes_back {
    ($message:expr, $kind:ty) => {{
        let message = $message;
        let mut writer = Writer::new();
        message.encode(&mut writer);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(<$kind>::decode(&mut reader), Ok(message));
        prop_assert_eq!(reader.end(), Ok(()));
        for end in 0..bytes.len() {
            prop_assert!(<$kind>::decode(&mut Reader::new(&bytes[..end])).is_err());
        }
    }};
}
