package session_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"sessiongate/session"
)

// rounds is how often each pair of an end and what it meets is played: half of
// them in one process, half in two.
const rounds = 1000

var seed = flag.Uint64("seed", 0, "replay the schedules of TestAnEndWinsAgainstWhateverItMeets that a failure named")

// schedule draws the moments at which things happen: for each who draws other ones,
// so that a replay does not depend on who comes first.
type schedule struct {
	seed, round uint64
	mu          sync.Mutex // guards of
	of          map[string]*draws
}

func (s *schedule) draws(who string) *draws {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.of[who]
	if d == nil {
		h := fnv.New64()
		h.Write([]byte(who))
		d = &draws{rng: rand.New(rand.NewPCG(s.seed+s.round<<32, h.Sum64()))}
		s.of[who] = d
	}
	return d
}

// draws are somebody's.
type draws struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (d *draws) upTo(n time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(d.rng.Int64N(int64(n)))
}

func (d *draws) pause(upTo time.Duration) { time.Sleep(d.upTo(upTo)) }

func (d *draws) coin() bool { return d.upTo(2) == 0 }

// round is one session's end, and what it meets.
type round struct {
	t *testing.T
	schedule
	name  string
	procs []*bench // one, or two that share a store

	sub, sid string
	begun    time.Time
	cookie   *http.Cookie
	key      session.Key
	id       string // in lists
	helper   *http.Cookie
	moment   time.Time // at which the clock ends it

	notes     sync.Mutex // guards what follows
	watched   []sighting
	tokens    []string // the refresh tokens it had
	refreshed bool     // somebody got an access token
	answered  time.Time
	lateCalls int
	created   *created
}

// sighting is what somebody who watches was told.
type sighting struct {
	key session.Key
	o   *observer
	err error
}

// created is the session of a login that the end meets.
type created struct {
	key    session.Key
	cookie *http.Cookie
	err    error
}

func (r *round) errorf(format string, args ...any) {
	r.t.Helper()
	r.t.Errorf("%s: %s", r.name, fmt.Sprintf(format, args...))
}

// watch opens a stream.
func (r *round) watch(b *bench, s *session.Session) {
	o, err := b.tryWatch(s)
	r.notes.Lock()
	defer r.notes.Unlock()
	r.watched = append(r.watched, sighting{s.Key(), o, err})
}

// meeting is what an end meets: something that could bring the session back, or
// miss the end.
type meeting struct {
	name string
	// ready waits until it can be met.
	ready func(*round)
	meet  func(r *round, d *draws, b *bench, s *session.Session)
}

const roundTTL = 5 * time.Second // of access tokens

var meetings = []meeting{
	{"a refresh", func(r *round) {
		time.Sleep(roundTTL - 2*time.Second + r.draws("ready").upTo(2*time.Second)) // ahead, or when it has run out
	}, func(r *round, d *draws, b *bench, s *session.Session) {
		if d.coin() {
			var err error
			if s, err = b.Session(request(r.cookie)); err != nil {
				return
			}
		}
		token, err := s.AccessToken(r.t.Context())
		r.refreshed = err == nil
		if err == nil && d.coin() {
			_, err = s.Renew(r.t.Context(), token)
		}
		var end *session.Ended
		if err != nil && !errors.As(err, &end) && !errors.Is(err, session.ErrNoRenewal) {
			r.errorf("a refresh: %v", err)
		}
	}},
	{"a login", func(*round) {}, func(r *round, d *draws, b *bench, _ *session.Session) {
		s, c, err := b.tryLogin(func(l *session.Login) {
			l.Subject, l.SID, l.FlowBegan = r.sub, r.sid, r.begun
			if d.coin() {
				l.Former = []session.Key{r.key}
			}
		})
		made := &created{cookie: c, err: err}
		if err == nil {
			made.key = s.Key()
			r.watch(b, s)
		}
		r.notes.Lock()
		r.created = made
		r.notes.Unlock()
	}},
	{"a touch", func(*round) { time.Sleep(4 * time.Second) }, func(r *round, d *draws, b *bench, s *session.Session) {
		for range 3 {
			s.Use()
			d.pause(2 * time.Millisecond)
			if s, err := b.Session(request(r.cookie)); err == nil {
				s.Use()
			}
		}
	}},
	{"a stream that is opened", func(*round) {}, func(r *round, d *draws, b *bench, s *session.Session) {
		for range 4 {
			r.watch(b, s)
			d.pause(2 * time.Millisecond)
			if d.coin() {
				b.forget()
			}
			if found, err := b.Session(request(r.cookie)); err == nil {
				s = found
			}
		}
	}},
}

// finish is how a session ends.
type finish struct {
	name           string
	reason         session.Reason
	idle, lifetime time.Duration
	end            func(r *round, d *draws, b *bench, s *session.Session)
	// others tells what becomes of a session that is created meanwhile.
	others fate
}

// fate of a session of the same user that is created while another ends.
type fate int

const (
	lives fate = iota
	mayEnd
	ends
)

const (
	roundIdle     = time.Minute
	roundLifetime = 10 * time.Minute
)

// byCall is an end that is answered.
func byCall(call func(r *round, d *draws, b *bench, s *session.Session) error) func(*round, *draws, *bench, *session.Session) {
	return func(r *round, d *draws, b *bench, s *session.Session) {
		d.pause(8 * time.Millisecond)
		err := call(r, d, b, s)
		if err != nil && !errors.Is(err, session.ErrAbsent) && !errors.Is(err, session.ErrNoSession) {
			r.errorf("the end: %v", err)
		}
	}
}

func byClock(r *round, _ *draws, _ *bench, _ *session.Session) { time.Sleep(time.Until(r.moment)) }

var finishes = []finish{
	{"logout", session.Logout, roundIdle, roundLifetime, byCall(func(r *round, _ *draws, b *bench, s *session.Session) error {
		_, err := b.Logout(r.t.Context(), s)
		return err
	}), lives},
	{"back-channel logout by sid", session.BackChannel, roundIdle, roundLifetime, byCall(func(r *round, d *draws, b *bench, _ *session.Session) error {
		_, err := b.EndSID(r.t.Context(), r.sid, session.RemoteLogout{Reason: session.BackChannel, BeganBefore: time.Now()})
		return err
	}), ends},
	{"back-channel logout by sub", session.BackChannel, roundIdle, roundLifetime, byCall(func(r *round, d *draws, b *bench, _ *session.Session) error {
		_, err := b.EndSubject(r.t.Context(), r.sub, session.RemoteLogout{Reason: session.BackChannel, BeganBefore: time.Now()})
		return err
	}), ends},
	{"the user's list", session.Revoked, roundIdle, roundLifetime, byCall(func(r *round, d *draws, b *bench, _ *session.Session) error {
		s, err := b.Session(request(r.helper))
		if err != nil {
			return err
		}
		return b.EndListed(r.t.Context(), s, r.id)
	}), lives},
	{"an operator", session.Revoked, roundIdle, roundLifetime, byCall(func(r *round, d *draws, b *bench, _ *session.Session) error {
		if d.coin() {
			return b.manager.EndByID(r.t.Context(), r.id)
		}
		_, err := b.manager.EndAll(r.t.Context(), origin, r.sub)
		return err
	}), mayEnd},
	{"lifetime", session.Lifetime, 20 * time.Second, 10 * time.Second, byClock, lives},
	{"idle", session.IdleTimeout, 10 * time.Second, roundLifetime, byClock, lives},
	{"a reload", session.Revoked, roundIdle, roundLifetime, byCall(func(r *round, d *draws, b *bench, _ *session.Session) error {
		var wg sync.WaitGroup
		for i, p := range r.procs {
			p.app.ClientID = r.name
			wg.Go(func() {
				d := r.draws(fmt.Sprint("reload ", i))
				if p.manager != b.manager {
					d.pause(8 * time.Millisecond)
				}
				former := p.App
				p.reload()
				d.pause(2 * time.Millisecond)
				if err := p.manager.Retire(r.t.Context(), former); err != nil {
					r.errorf("Retire: %v", err)
				}
			})
		}
		wg.Wait()
		return nil
	}), ends},
}

// Promise 4: a session ended during a refresh, a login, a touch or the opening of
// a stream is not back afterwards, and whoever has it open is told.
func TestAnEndWinsAgainstWhateverItMeets(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	for _, f := range finishes {
		for _, m := range meetings {
			if f.reason == session.IdleTimeout && m.name == "a touch" {
				continue // which keeps it alive
			}
			for _, processes := range []int{1, 2} {
				t.Run(fmt.Sprintf("%s meets %s in %d", f.name, m.name, processes), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { playAll(t, f, m, processes) })
				})
			}
		}
	}
}

func playAll(t *testing.T, f finish, m meeting, processes int) {
	b := newBench(t, inMemory, func(b *bench) {
		b.config.IdleTimeout, b.config.Lifetime = f.idle, f.lifetime
		b.provider.TTL, b.app.RefreshAhead = roundTTL, 2*time.Second
		b.app.MaxPerUser = 3
	})
	procs := []*bench{b}
	if processes == 2 {
		other := *b
		other.store = &hooked{Store: b.store.Store}
		other.config.Store = other.store
		procs = append(procs, other.replica())
	}
	for i := range rounds / 2 {
		r := &round{
			t: t, schedule: schedule{seed: *seed, round: uint64(i), of: map[string]*draws{}}, procs: procs,
			name: fmt.Sprintf("seed %d, round %d", *seed, i), sub: fmt.Sprint("user ", i), sid: fmt.Sprint("sid ", i),
		}
		r.play(f, m)
		if t.Failed() {
			return
		}
	}
}

// hooks delay whatever the stores and the provider are asked for.
func (r *round) hooks() {
	b := r.procs[0]
	for i, p := range r.procs {
		p.store.set(func(op string) error {
			if d := r.draws(fmt.Sprint(op, i)); d.coin() {
				d.pause(3 * time.Millisecond)
			}
			return nil
		})
	}
	wait := func() { r.draws("provider").pause(4 * time.Millisecond) }
	b.provider.set(func(p *provider) {
		p.Before = func() {
			r.notes.Lock()
			// What is sent after the end was marked before it: a few milliseconds.
			if !r.answered.IsZero() && time.Since(r.answered) > 10*time.Millisecond {
				r.lateCalls++
			}
			r.notes.Unlock()
			wait()
		}
		p.After = func() error { wait(); return nil }
		p.Shape = func(t *oauth2.Token) *oauth2.Token {
			r.notes.Lock()
			defer r.notes.Unlock()
			r.tokens = append(r.tokens, t.RefreshToken)
			return t
		}
		p.Revoking = func(ctx context.Context) error { wait(); return nil }
	})
}

// unrevoked counts in all processes.
func (r *round) unrevoked() (n int) {
	for _, p := range r.procs {
		n += p.unrevoked()
	}
	return n
}

func (r *round) login(sid string, change func(*session.Login)) *http.Cookie {
	return r.procs[0].login(change, func(l *session.Login) { l.Subject, l.SID, l.FlowBegan = r.sub, sid, r.begun })
}

func (r *round) play(f finish, m meeting) {
	b, d := r.procs[0], r.draws("round")
	clock := f.reason == session.Lifetime || f.reason == session.IdleTimeout
	// Uses are written, and the clock is looked at, every second: begin shortly before.
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)) - d.upTo(8*time.Millisecond))
	r.begun = time.Now()
	r.cookie = r.login(r.sid, func(l *session.Login) { r.tokens = []string{l.Token.RefreshToken} })
	if f.reason == session.Revoked {
		r.helper = r.login("sid of another", func(*session.Login) {})
	}
	n := time.Duration(len(r.procs))
	at, meets := r.procs[d.upTo(n)], r.procs[d.upTo(n)]
	own, met := at.open(r.cookie), meets.open(r.cookie)
	r.key = own.Key()
	if r.helper != nil {
		r.id = at.idOf(r.cookie)
	}
	if d.coin() {
		r.watch(at, own)
	}
	if d.coin() {
		r.watch(meets, met)
	}
	unrevoked := r.unrevoked()
	time.Sleep(time.Second)
	m.ready(r)
	r.moment = r.begun.Add(min(f.lifetime, f.idle+f.idle/20))
	if clock {
		time.Sleep(time.Until(r.moment) - d.upTo(8*time.Millisecond))
	}

	r.hooks()
	var wg sync.WaitGroup
	actor := *meets // with the app that was in force when it began
	wg.Go(func() {
		d := r.draws("meeting")
		d.pause(8 * time.Millisecond)
		m.meet(r, d, &actor, met)
	})
	wg.Go(func() {
		d := r.draws("end")
		f.end(r, d, at, own)
		if clock && len(r.procs) == 2 {
			return // over when somebody comes and sees
		}
		r.notes.Lock()
		r.answered = time.Now()
		r.notes.Unlock()
		for range 3 { // in one process it is over from now on
			if len(r.procs) == 1 && !r.beingReplaced() {
				r.wantOver(at)
			}
			d.pause(4 * time.Millisecond)
		}
	})
	wg.Wait()
	time.Sleep(time.Second)
	for _, p := range r.procs {
		p.store.set(nil)
	}
	time.Sleep(20 * time.Millisecond)
	synctest.Wait()
	b.provider.set(func(p *provider) { p.Before, p.After, p.Shape, p.Revoking = nil, nil, nil, nil })
	r.verify(f, unrevoked)
}

// beingReplaced tells whether a login was faster that is not done with it. What
// ends all of a user's sessions finds none then, and does not know of this one.
func (r *round) beingReplaced() bool {
	var end *session.Ended
	_, err := r.procs[0].store.Store.Load(r.t.Context(), r.key)
	r.notes.Lock()
	defer r.notes.Unlock()
	return errors.As(err, &end) && end.Reason == session.Replaced && r.created == nil
}

// wantOver wants a request to be told that the session is over, and returns why.
func (r *round) wantOver(b *bench) session.Reason {
	r.t.Helper()
	var end *session.Ended
	if _, err := b.token(r.cookie); !errors.As(err, &end) {
		r.errorf("a request after the end: error = %v, want ended", err)
		return ""
	}
	return end.Reason
}

func (r *round) verify(f finish, unrevoked int) {
	b := r.procs[0]
	calls, _ := b.provider.seen()
	var end *session.Ended
	for _, p := range r.procs {
		if len(r.procs) > 1 {
			p.forget() // so that it asks the store
		}
		reason := r.wantOver(p)
		if _, err := b.store.Load(r.t.Context(), r.key); !errors.As(err, &end) || end.Reason != reason {
			r.errorf("requests are told %q, the store says: %v", reason, err)
			return
		}
	}
	replaced := end.Reason == session.Replaced && r.created != nil
	if end.Reason != f.reason && !replaced {
		r.errorf("ended by %s, want %s", end.Reason, f.reason)
	}
	if r.created != nil {
		r.verifyCreated(f.others)
	}
	r.verifyWatched(end.Reason)
	if after, _ := b.provider.seen(); after != calls || r.lateCalls != 0 {
		r.errorf("%d token calls for an ended session, and %d before by who came late", after-calls, r.lateCalls)
	}
	if !replaced {
		r.verifyTokens(f, unrevoked)
	}
}

// verifyCreated looks at the session of the login that the end met.
func (r *round) verifyCreated(want fate) {
	if err := r.created.err; err != nil {
		if want == lives || !errors.Is(err, session.ErrNone) {
			r.errorf("login: %v", err)
		}
		return
	}
	for _, p := range r.procs {
		var end *session.Ended
		_, err := p.token(r.created.cookie)
		if err != nil && !errors.As(err, &end) || err != nil && want == lives || err == nil && want == ends {
			r.errorf("session of the login: error = %v", err)
		}
	}
}

// verifyWatched wants all who watch to have been told, once.
func (r *round) verifyWatched(reason session.Reason) {
	synctest.Wait()
	for _, w := range r.watched {
		var end *session.Ended
		if w.err != nil {
			if !errors.As(w.err, &end) || w.key == r.key && end.Reason != reason {
				r.errorf("Watch: %v", w.err)
			}
			continue
		}
		w.o.mu.Lock()
		told := w.o.ends
		w.o.mu.Unlock()
		if w.key == r.key {
			if len(told) != 1 || told[0] != reason {
				r.errorf("a stream was told %q, want %q", told, reason)
			}
		} else if _, err := r.procs[0].store.Load(r.t.Context(), w.key); err == nil && len(told) != 0 || errors.As(err, &end) && (len(told) != 1 || told[0] != end.Reason) {
			r.errorf("a stream of the new session was told %q, the store says: %v", told, err)
		}
		w.o.stop()
	}
}

// verifyTokens wants the newest refresh token to be of no use any more, or counted.
func (r *round) verifyTokens(f finish, unrevoked int) {
	if len(r.procs) > 1 && f.reason != session.Logout && r.refreshed {
		return // the other process refreshed it, and does not know; this one gave back what it knew of
	}
	p := r.procs[0].provider
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current[r.tokens[len(r.tokens)-1]] && r.unrevoked() == unrevoked {
		r.errorf("the newest of %d refresh tokens is still good, and not counted as unrevoked", len(r.tokens))
	}
}
