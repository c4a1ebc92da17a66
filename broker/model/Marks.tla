------------------------------- MODULE Marks -------------------------------
(***************************************************************************)
(* A log whose entries have width: a batch of w records moves the index    *)
(* and the offset by w, a mark (the beginning of a term) moves the index   *)
(* by one and the offset by nothing.  Raft speaks indexes; readers speak   *)
(* offsets.                                                                *)
(*                                                                         *)
(* Claims: what a reader may see at an offset never changes, offsets have  *)
(* no holes, and what is committed ends at the end of an entry on every    *)
(* server, although logs whose entries have other bounds at the same       *)
(* indexes overwrite each other.                                           *)
(*                                                                         *)
(* Messages are read and answered at once: delays, repeats and lost power  *)
(* are the subject of Suspect.tla, not of this one.                        *)
(***************************************************************************)
EXTENDS Integers, FiniteSets, Sequences, TLC

CONSTANTS
    Server, TermMax,
    EndMax,          \* the largest index of a log's end
    WidthMax,        \* records of a batch
    JoinsByIndex,    \* TRUE plants a bug: an append joins on wherever the follower's log is long enough
    MarksTakeOffsets \* TRUE plants a bug: a reader takes an index for an offset

VARIABLES
    term, votedFor, role, votes,
    log,             \* a sequence of [term, width, mark]
    commit,          \* an index: where what is known to be committed ends
    seen             \* what readers saw: <<offset, term of the batch, place in the batch>>

vars == <<term, votedFor, role, votes, log, commit, seen>>

Majority(set) == 2 * Cardinality(set) > Cardinality(Server)
Max(a, b) == IF a > b THEN a ELSE b
Min(a, b) == IF a < b THEN a ELSE b

RECURSIVE EndOf(_, _), OffsetOf(_, _)
\* The index and the offset behind the n-th entry.
EndOf(l, n) == IF n = 0 THEN 0 ELSE EndOf(l, n - 1) + l[n].width
OffsetOf(l, n) ==
    IF n = 0 THEN 0
    ELSE OffsetOf(l, n - 1) + (IF l[n].mark /\ ~MarksTakeOffsets THEN 0 ELSE l[n].width)
End(l) == EndOf(l, Len(l))
LastTerm(l) == IF l = <<>> THEN 0 ELSE l[Len(l)].term

\* How many entries end at this index; no entry ends there if the result is -1.
EntriesAt(l, index) ==
    IF \E n \in 0..Len(l) : EndOf(l, n) = index
    THEN CHOOSE n \in 0..Len(l) : EndOf(l, n) = index
    ELSE -1
\* The term of the entry that covers the index before this one, as a term lookup by index answers.
TermAt(l, index) ==
    IF index = 0 THEN 0
    ELSE l[CHOOSE n \in 1..Len(l) : EndOf(l, n - 1) < index /\ index <= EndOf(l, n)].term

Init ==
    /\ term = [s \in Server |-> 0] /\ votedFor = [s \in Server |-> s]
    /\ role = [s \in Server |-> "follower"] /\ votes = [s \in Server |-> {}]
    /\ log = [s \in Server |-> <<>>] /\ commit = [s \in Server |-> 0]
    /\ seen = {}

Stand(s) ==
    /\ role[s] # "leader" /\ term[s] < TermMax
    /\ term' = [term EXCEPT ![s] = @ + 1] /\ votedFor' = [votedFor EXCEPT ![s] = s]
    /\ role' = [role EXCEPT ![s] = "candidate"] /\ votes' = [votes EXCEPT ![s] = {s}]
    /\ UNCHANGED <<log, commit, seen>>

Vote(v, c) ==
    /\ role[c] = "candidate" /\ v # c
    /\ term[v] < term[c] \/ (term[v] = term[c] /\ votedFor[v] = c /\ v \notin votes[c])
    /\ \/ LastTerm(log[c]) > LastTerm(log[v])
       \/ LastTerm(log[c]) = LastTerm(log[v]) /\ End(log[c]) >= End(log[v])
    /\ term' = [term EXCEPT ![v] = term[c]] /\ votedFor' = [votedFor EXCEPT ![v] = c]
    /\ role' = [role EXCEPT ![v] = "follower"]
    /\ votes' = [votes EXCEPT ![c] = @ \union {v}, ![v] = {}]
    /\ UNCHANGED <<log, commit, seen>>

Grow(s, entry) ==
    /\ End(log[s]) + entry.width <= EndMax
    /\ log' = [log EXCEPT ![s] = Append(@, entry)]

Lead(c) ==
    /\ role[c] = "candidate" /\ Majority(votes[c])
    /\ Grow(c, [term |-> term[c], width |-> 1, mark |-> TRUE])
    /\ role' = [role EXCEPT ![c] = "leader"] /\ votes' = [votes EXCEPT ![c] = {}]
    /\ UNCHANGED <<term, votedFor, commit, seen>>

Produce(l) ==
    /\ role[l] = "leader"
    /\ \E width \in 1..WidthMax : Grow(l, [term |-> term[l], width |-> width, mark |-> FALSE])
    /\ UNCHANGED <<term, votedFor, role, votes, commit, seen>>

\* The leader sends all behind one of its entries; the follower compares index and term of that place
\* as it knows them, and cuts at the first entry that differs.
Replicate(l, f) ==
    /\ role[l] = "leader" /\ f # l /\ term[f] <= term[l]
    /\ \E n \in 0..Len(log[l]) :
        LET prev == EndOf(log[l], n)
            joins == /\ prev <= End(log[f])
                     /\ TermAt(log[f], prev) = TermAt(log[l], prev) \/ JoinsByIndex
            kept == EntriesAt(log[f], prev)
            rest == SubSeq(log[l], n + 1, Len(log[l]))
            have == SubSeq(log[f], kept + 1, Len(log[f]))
            agree == \A i \in 1..Min(Len(have), Len(rest)) : have[i] = rest[i]
        IN
        /\ joins
        /\ Assert(kept >= 0 \/ JoinsByIndex, "a place that joins is inside an entry") /\ kept >= 0
        /\ log' = [log EXCEPT ![f] =
                      IF agree /\ Len(have) > Len(rest) THEN @ ELSE SubSeq(@, 1, kept) \o rest]
        /\ commit' = [commit EXCEPT ![f] = Max(@, Min(commit[l], End(log[l])))]
    /\ term' = [term EXCEPT ![f] = term[l]]
    /\ votedFor' = [votedFor EXCEPT ![f] = IF term[l] > term[f] THEN l ELSE @]
    /\ role' = [role EXCEPT ![f] = "follower"] /\ votes' = [votes EXCEPT ![f] = {}]
    /\ UNCHANGED seen

Holds(s, l, n) == Len(log[s]) >= n /\ SubSeq(log[s], 1, n) = SubSeq(log[l], 1, n)

Commit(l) ==
    /\ role[l] = "leader"
    /\ \E n \in 1..Len(log[l]) :
        /\ EndOf(log[l], n) > commit[l]
        /\ log[l][n].term = term[l]
        \* Who follows in this term and holds it has said so.
        /\ Majority({s \in Server : Holds(s, l, n) /\ term[s] = term[l]})
        /\ commit' = [commit EXCEPT ![l] = EndOf(log[l], n)]
    /\ UNCHANGED <<term, votedFor, role, votes, log, seen>>

\* A reader takes what a server says is committed.
Read(s) ==
    /\ commit[s] > 0
    /\ LET whole == {n \in 1..Len(log[s]) : EndOf(log[s], n) <= commit[s] /\ ~log[s][n].mark}
           found == UNION {{<<OffsetOf(log[s], n - 1) + i, log[s][n].term, n, i>> :
                               i \in 0..(log[s][n].width - 1)} : n \in whole}
       IN seen' = seen \union found
    /\ seen' # seen
    /\ UNCHANGED <<term, votedFor, role, votes, log, commit>>

Next ==
    \/ \E s \in Server : Stand(s) \/ Lead(s) \/ Produce(s) \/ Commit(s) \/ Read(s)
    \/ \E s, p \in Server : Vote(s, p) \/ Replicate(s, p)

Spec == Init /\ [][Next]_vars

CommitEndsAtAnEntry == \A s \in Server : EntriesAt(log[s], commit[s]) >= 0
OffsetsNeverChange == \A x, y \in seen : x[1] = y[1] => x = y
NoHoles == \A x \in seen : x[1] = 0 \/ \E y \in seen : y[1] = x[1] - 1

Symmetry == Permutations(Server)
=============================================================================
