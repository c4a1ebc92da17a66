//! Consumer groups, the members' side: `membership` has the rules, pure.

pub mod membership;
