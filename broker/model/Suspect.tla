------------------------------ MODULE Suspect ------------------------------
(***************************************************************************)
(* Raft whose replicas count an entry before it is on disk (flush by       *)
(* interval), and the rule that makes this safe: a replica that lost power *)
(* is Suspect, and neither votes nor stands until it has accepted all that *)
(* a leader which committed in its own term has committed, or until every  *)
(* voter has told it, in this life of its own, where its log ends.         *)
(*                                                                         *)
(* Claim (Durable): an entry that was committed is in the log of every     *)
(* later leader, unless a majority of the servers have lost it by power    *)
(* cuts.                                                                   *)
(*                                                                         *)
(* What is simplified, always towards more behaviours or none fewer:       *)
(* an entry is the term of its leader, its place is its index; what a      *)
(* leader appended in a term never changes, so a message names a prefix of *)
(* `book[term]` instead of carrying entries; a power cut may take any      *)
(* suffix, so there are no flushes; an election reads and writes two       *)
(* servers at once, because a vote is durable and a candidate may take its *)
(* time to count it; only leaders know what is committed.                  *)
(***************************************************************************)
EXTENDS Integers, FiniteSets, Sequences, TLC

CONSTANTS
    Server,          \* the voters
    TermMax,         \* elections
    LenMax,          \* entries of a log, those that begin a term included
    CutsMax,         \* power cuts in all
    AnyLife,         \* the address of a message whose sender had not met the receiver
    SuspectsAbstain, \* the rule; FALSE plants a bug
    OwnTermClears,   \* only a leader that committed in its own term clears; FALSE plants a bug
    LivesFence,      \* what is meant for, or came from, an earlier life is dropped; FALSE plants a bug
    ReportsNameLife  \* reports count only if they name this life; FALSE plants a bug

VARIABLES
    term, votedFor,  \* durable at once
    log,             \* a sequence of terms
    role, votes,     \* volatile; `votes` of candidates only
    match, commit,   \* volatile, of leaders only
    met,             \* met[s][p]: the life of p that s knows, 0 for none
    life,
    trust,           \* "full", "suspect", or "floor"
    floor,           \* with "floor": the position below which it votes for nobody
    heard,           \* reports that a Suspect has gathered in this life
    book,            \* book[t]: the log of the leader of term t, as far as it grew
    appends, acks, reports,     \* messages under way
    committed,       \* <<index, term of the entry, term in which it was committed>>
    cutAway,         \* cutAway[s]: <<index, term>> of entries that power cuts took from s
    excused          \* entries that a majority had lost at some moment

servers == <<term, votedFor, log, role, votes, match, commit>>
lives == <<met, life>>
trusts == <<trust, floor, heard>>
messages == <<appends, acks, reports>>
ghosts == <<committed, cutAway, excused>>
vars == <<servers, lives, trusts, messages, ghosts, book>>

Majority(set) == 2 * Cardinality(set) > Cardinality(Server)
Min(a, b) == IF a < b THEN a ELSE b
Max(a, b) == IF a > b THEN a ELSE b
None == [p \in Server |-> 0]

Last(l) == IF l = <<>> THEN <<0, 0>> ELSE <<l[Len(l)], Len(l)>>     \* <<term, index>>
AtLeast(a, b) == a[1] > b[1] \/ (a[1] = b[1] /\ a[2] >= b[2])
Highest(set) == CHOOSE p \in set : \A q \in set : AtLeast(p, q)
Has(l, index, entry) == Len(l) >= index /\ l[index] = entry

Allows(s, last) ==
    \/ trust[s] = "full"
    \/ trust[s] = "floor" /\ AtLeast(last, floor[s])
    \/ trust[s] = "suspect" /\ ~SuspectsAbstain

Init ==
    /\ term = None /\ votedFor = [s \in Server |-> s] /\ log = [s \in Server |-> <<>>]
    /\ role = [s \in Server |-> "follower"] /\ votes = [s \in Server |-> {}]
    /\ match = [s \in Server |-> None] /\ commit = None
    /\ met = [s \in Server |-> [p \in Server |-> 1]] /\ life = [s \in Server |-> 1]
    /\ trust = [s \in Server |-> "full"] /\ floor = [s \in Server |-> <<0, 0>>]
    /\ heard = [s \in Server |-> {}]
    /\ book = [t \in 1..TermMax |-> <<>>]
    /\ appends = {} /\ acks = {} /\ reports = {}
    /\ committed = {} /\ cutAway = [s \in Server |-> {}] /\ excused = {}

\* What a server is in a new term, unless it leads.
Become(s, newTerm, vote, newRole, newVotes) ==
    /\ term' = [term EXCEPT ![s] = newTerm] /\ votedFor' = [votedFor EXCEPT ![s] = vote]
    /\ role' = [role EXCEPT ![s] = newRole] /\ votes' = newVotes
    /\ match' = [match EXCEPT ![s] = None] /\ commit' = [commit EXCEPT ![s] = 0]

(***************************************************************************)
(* Elections.                                                              *)
(***************************************************************************)
Stand(s) ==
    /\ role[s] # "leader" /\ term[s] < TermMax /\ Allows(s, Last(log[s]))
    /\ Become(s, term[s] + 1, s, "candidate", [votes EXCEPT ![s] = {s}])
    /\ UNCHANGED <<log, lives, trusts, messages, ghosts, book>>

Vote(v, c) ==
    /\ role[c] = "candidate" /\ v # c
    /\ term[v] < term[c] \/ (term[v] = term[c] /\ votedFor[v] = c /\ v \notin votes[c])
    /\ AtLeast(Last(log[c]), Last(log[v])) /\ Allows(v, Last(log[c]))
    /\ Become(v, term[c], c, "follower", [votes EXCEPT ![c] = @ \union {v}, ![v] = {}])
    /\ UNCHANGED <<log, lives, trusts, messages, ghosts, book>>

Grow(l) ==
    /\ Len(log[l]) < LenMax
    /\ log' = [log EXCEPT ![l] = Append(@, term[l])]
    /\ book' = [book EXCEPT ![term[l]] = log'[l]]

Lead(c) ==
    /\ role[c] = "candidate" /\ Majority(votes[c]) /\ Grow(c)
    /\ role' = [role EXCEPT ![c] = "leader"] /\ votes' = [votes EXCEPT ![c] = {}]
    /\ trust' = [trust EXCEPT ![c] = "full"] /\ heard' = [heard EXCEPT ![c] = {}]
    /\ floor' = [floor EXCEPT ![c] = <<0, 0>>]
    /\ UNCHANGED <<term, votedFor, match, commit, lives, messages, ghosts>>

(***************************************************************************)
(* Replication.  Appends go only to servers whose life is known.           *)
(***************************************************************************)
Produce(l) ==
    /\ role[l] = "leader" /\ Grow(l)
    /\ UNCHANGED <<term, votedFor, role, votes, match, commit, lives, trusts, messages, ghosts>>

SendAppend(l, f) ==
    /\ role[l] = "leader" /\ f # l /\ met[l][f] > 0
    /\ \E len \in 1..Len(log[l]) :
        LET m == [term |-> term[l], from |-> l, to |-> f, toLife |-> met[l][f],
                  len |-> len, commit |-> commit[l]]
        IN m \notin appends /\ appends' = appends \union {m}
    /\ UNCHANGED <<servers, lives, trusts, acks, reports, ghosts, book>>

\* A frame that says nothing but which life its sender is in.
Meet(s, p) ==
    /\ s # p /\ met[s][p] < life[p]
    /\ met' = [met EXCEPT ![s][p] = life[p]] /\ match' = [match EXCEPT ![s][p] = 0]
    /\ UNCHANGED <<term, votedFor, log, role, votes, commit, life, trusts, messages, ghosts, book>>

ReceiveAppend(m) ==
    LET f == m.to
        sent == SubSeq(book[m.term], 1, m.len)
        agree == \A i \in 1..Min(Len(log[f]), m.len) : log[f][i] = sent[i]
        clears == \/ m.commit \in 1..m.len /\ sent[m.commit] = m.term
                  \/ ~OwnTermClears
        full == trust[f] = "full" \/ clears
    IN
    /\ appends' = appends \ {m}
    /\ IF (LivesFence /\ m.toLife # life[f]) \/ m.term < term[f]
       THEN UNCHANGED <<servers, trusts, acks>>
       ELSE /\ Become(f, m.term, IF m.term > term[f] THEN m.from ELSE votedFor[f], "follower",
                      [votes EXCEPT ![f] = {}])
            /\ log' = [log EXCEPT ![f] = IF agree /\ Len(@) > m.len THEN @ ELSE sent]
            /\ trust' = [trust EXCEPT ![f] = IF full THEN "full" ELSE @]
            /\ floor' = [floor EXCEPT ![f] = IF full THEN <<0, 0>> ELSE @]
            /\ heard' = [heard EXCEPT ![f] = {}]
            /\ acks' = acks \union {[term |-> m.term, from |-> f, life |-> life[f], to |-> m.from,
                                     len |-> m.len]}
    /\ UNCHANGED <<lives, reports, ghosts, book>>

ReceiveAck(a) ==
    LET l == a.to IN
    /\ acks' = acks \ {a}
    /\ IF role[l] = "leader" /\ term[l] = a.term /\ (a.life >= met[l][a.from] \/ ~LivesFence)
       THEN /\ met' = [met EXCEPT ![l][a.from] = Max(@, a.life)]
            /\ match' = [match EXCEPT ![l][a.from] =
                            IF a.life > met[l][a.from] THEN a.len ELSE Max(@, a.len)]
       ELSE UNCHANGED <<met, match>>
    /\ UNCHANGED <<term, votedFor, log, role, votes, commit, life, trusts, appends, reports, ghosts,
                   book>>

Commit(l) ==
    /\ role[l] = "leader"
    /\ \E n \in (commit[l] + 1)..Len(log[l]) :
        /\ log[l][n] = term[l]
        /\ Majority({l} \union {p \in Server : match[l][p] >= n})
        /\ commit' = [commit EXCEPT ![l] = n]
        /\ committed' = committed \union
            {<<i, log[l][i], term[l]>> : i \in {j \in 1..n :
                ~\E c \in committed : c[1] = j /\ c[2] = log[l][j]}}
    /\ UNCHANGED <<term, votedFor, log, role, votes, match, lives, trusts, messages, cutAway, excused,
                   book>>

(***************************************************************************)
(* The power, and what a Suspect does about its loss.                      *)
(***************************************************************************)
Cuts == LET sum[S \in SUBSET Server] ==
            IF S = {} THEN 0 ELSE LET s == CHOOSE s \in S : TRUE IN life[s] - 1 + sum[S \ {s}]
        IN sum[Server]

PowerCut(s) ==
    /\ Cuts < CutsMax
    /\ \E kept \in 0..Len(log[s]) :
        LET left == [log EXCEPT ![s] = SubSeq(@, 1, kept)]
            away == [cutAway EXCEPT ![s] = @ \union {<<i, log[s][i]>> : i \in (kept + 1)..Len(log[s])}]
            gone(e) == {p \in Server : e \in away[p] /\ ~Has(left[p], e[1], e[2])}
        IN
        /\ log' = left /\ cutAway' = away
        /\ excused' = excused \union {e \in away[s] : Majority(gone(e))}
    /\ life' = [life EXCEPT ![s] = @ + 1] /\ met' = [met EXCEPT ![s] = None]
    /\ role' = [role EXCEPT ![s] = "follower"] /\ votes' = [votes EXCEPT ![s] = {}]
    /\ match' = [match EXCEPT ![s] = None] /\ commit' = [commit EXCEPT ![s] = 0]
    /\ trust' = [trust EXCEPT ![s] = "suspect"] /\ floor' = [floor EXCEPT ![s] = <<0, 0>>]
    /\ heard' = [heard EXCEPT ![s] = {}]
    /\ UNCHANGED <<term, votedFor, messages, committed, book>>

\* Who has no leader asks for a vote, and says by that where its log ends: to a life that it knows,
\* or, before it has met the receiver, to whichever life it may reach.
Report(s, f) ==
    /\ s # f /\ role[s] # "leader"
    /\ \E toLife \in {met[s][f]} \union (IF ReportsNameLife THEN {} ELSE {AnyLife}) :
        /\ toLife # 0 /\ (toLife = AnyLife \/ (toLife = life[f] /\ trust[f] = "suspect"))
        /\ reports' = reports \union
            {[from |-> s, to |-> f, last |-> Last(log[s]), toLife |-> toLife]}
    /\ reports' # reports
    /\ UNCHANGED <<servers, lives, trusts, appends, acks, ghosts, book>>

ReceiveReport(r) ==
    LET f == r.to
        known == {<<r.from, r.last>>} \union {h \in heard[f] : h[1] # r.from}
        all == \A p \in Server : p = f \/ \E h \in known : h[1] = p
    IN
    /\ reports' = reports \ {r}
    /\ IF r.toLife \in {life[f], AnyLife} /\ trust[f] = "suspect"
       THEN IF all
            THEN /\ trust' = [trust EXCEPT ![f] = "floor"]
                 /\ floor' = [floor EXCEPT ![f] =
                        Highest({Last(log[f])} \union {h[2] : h \in known})]
                 /\ heard' = [heard EXCEPT ![f] = {}]
            ELSE /\ heard' = [heard EXCEPT ![f] = known]
                 /\ UNCHANGED <<trust, floor>>
       ELSE UNCHANGED trusts
    /\ UNCHANGED <<servers, lives, appends, acks, ghosts, book>>

Next ==
    \/ \E s \in Server : Stand(s) \/ Lead(s) \/ Produce(s) \/ Commit(s) \/ PowerCut(s)
    \/ \E s, p \in Server : Vote(s, p) \/ SendAppend(s, p) \/ Meet(s, p) \/ Report(s, p)
    \/ \E m \in appends : ReceiveAppend(m)
    \/ \E a \in acks : ReceiveAck(a)
    \/ \E r \in reports : ReceiveReport(r)

Spec == Init /\ [][Next]_vars

(***************************************************************************)
(* What must hold.                                                         *)
(***************************************************************************)
OneLeader == \A s, p \in Server :
    role[s] = "leader" /\ role[p] = "leader" /\ term[s] = term[p] => s = p

Durable == \A c \in committed : <<c[1], c[2]>> \notin excused =>
    \A s \in Server : role[s] = "leader" /\ term[s] > c[3] => Has(log[s], c[1], c[2])

\* Bounds for the checker, not for the world.
CONSTANTS AppendsMax, AcksMax, ReportsMax
Bounded ==
    /\ Cardinality(appends) <= AppendsMax /\ Cardinality(acks) <= AcksMax
    /\ Cardinality(reports) <= ReportsMax

Symmetry == Permutations(Server)
=============================================================================
