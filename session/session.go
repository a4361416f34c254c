package session

import (
	"context"
	"crypto/hmac"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"
)

// idBytes is the length of a session id: 256 bits of crypto/rand (SES-07).
const idBytes = 32

// Session is a session opened in memory, shared by all requests that carry its
// cookie. Its methods are safe for concurrent use.
type Session struct {
	app     *App
	key     Key
	id      []byte // the secret that Data is sealed by; never leaves this package
	cookie  string
	created time.Time
	latest  time.Time // the absolute end, unless configuration has an earlier one

	used   atomic.Int64 // when use was last recorded, in Unix nanoseconds
	tokens atomic.Pointer[opened]
	end    atomic.Pointer[Ended] // set once, when it is known to be over

	*temper
}

// temper is what a process has tried with a session. It is handed on when the
// session is read anew, unless a reload came between.
type temper struct {
	app     *App
	retry   backoff
	renewed atomic.Pointer[renewal] // the last; nil: none
}

// calm tells whether there was nothing lately that is worth handing on.
func (t *temper) calm() bool { return t.renewed.Load() == nil && t.retry.calm() }

// opened is one version of a session's Data; it never changes.
type opened struct {
	Data
	version   uint64
	access    *AccessToken
	refreshAt int64 // Unix nanoseconds from which a refresh should begin
	expiresAt int64 // and from which the access token is of no use
}

// AccessToken is what the proxy puts on an upstream request.
type AccessToken struct {
	// Header is the value of the Authorization field, shared by many requests:
	// read it, pass it on, never write to it.
	Header     []string
	generation uint64
}

// Format keeps the token out of whatever prints it, by any verb.
func (*AccessToken) Format(f fmt.State, _ rune) { io.WriteString(f, "session.AccessToken{sealed}") }

// LogValue keeps the token out of logs.
func (*AccessToken) LogValue() slog.Value { return slog.StringValue("session.AccessToken{sealed}") }

// Format keeps id and tokens out of whatever prints the session, by any verb.
func (s *Session) Format(f fmt.State, _ rune) { io.WriteString(f, "session "+s.LogID()) }

// LogValue is the salted hash that stands for the session in logs.
func (s *Session) LogValue() slog.Value { return slog.StringValue(s.LogID()) }

// open makes a version of Data ready for requests. ahead is the configured time
// before expiry from which a refresh begins; of a token with a short life it is
// at most a fifth.
func (a *App) open(d *Data, version uint64, sessionEnd time.Time) *opened {
	const scheme = "Bearer "
	header := scheme + d.AccessToken
	o := &opened{
		Data: *d, version: version,
		access: &AccessToken{Header: []string{header}, generation: d.Generation},
	}
	o.AccessToken = header[len(scheme):] // the same memory: tokens are most of a session
	if d.Unverified != "" {
		return o // of no use before it is verified: expired since 1970
	}
	if d.TokenExpiry.IsZero() || d.TokenExpiry.After(sessionEnd) {
		o.refreshAt, o.expiresAt = sessionEnd.UnixNano(), sessionEnd.UnixNano()
		return o
	}
	window := min(a.cfg.RefreshAhead, d.TokenExpiry.Sub(d.TokenIssued)/5)
	o.refreshAt, o.expiresAt = d.TokenExpiry.Add(-window).UnixNano(), d.TokenExpiry.UnixNano()
	return o
}

// valid tells whether the access token may be used at a time.
func (o *opened) valid(now time.Time) bool { return now.UnixNano() < o.expiresAt }

// adopt takes newer tokens; older ones come too late and are forgotten.
func (s *Session) adopt(o *opened) {
	for {
		former := s.tokens.Load()
		if former.version >= o.version || s.tokens.CompareAndSwap(former, o) {
			return
		}
	}
}

// ends are the moments at which the clock ends a session.
type ends struct {
	absolute time.Time
	// idle is the idle end as the user is told it, overdue as it is enforced: use
	// is recorded only every twentieth of the idle timeout, so the idle end waits
	// for as much. It may come 5 % late, never early.
	idle, overdue time.Time
}

// ends is when the session is over if it is not used again, given a use (Unix
// nanoseconds) that it may not know of.
func (s *Session) ends(set *settings, used int64) ends {
	last := time.Unix(0, max(used, s.used.Load()))
	e := ends{absolute: s.latest, idle: last.Add(set.idle), overdue: last.Add(set.idle + set.idle/useFraction)}
	if end := s.created.Add(set.lifetime); end.Before(e.absolute) {
		e.absolute = end
	}
	return e
}

// told is the nearer end as the user is told.
func (e ends) told() time.Time { return earlier(e.absolute, e.idle) }

// enforced is the nearer end as it comes.
func (e ends) enforced() time.Time { return earlier(e.absolute, e.overdue) }

// over tells why the session is over at a time, "" if it is not.
func (e ends) over(now time.Time) Reason {
	switch {
	case !now.Before(e.absolute):
		return Lifetime
	case !now.Before(e.overdue):
		return IdleTimeout
	}
	return ""
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// useFraction: use is recorded at most once in 1/useFraction of the idle timeout.
const useFraction = 20

// Use records that the session is in use, which moves its idle end.
func (s *Session) Use() {
	idle := s.app.m.settings.Load().idle
	now, last := time.Now().UnixNano(), s.used.Load()
	if now-last < int64(idle/useFraction) || !s.used.CompareAndSwap(last, now) {
		return
	}
	s.app.m.touches.add(s.key, now)
}

// Key is the session's name in the store.
func (s *Session) Key() Key { return s.key }

// LogID is a salted hash that stands for the session in logs (OP-04).
func (s *Session) LogID() string { return s.app.m.logID(s.key) }

// View is what a browser may know of its session.
type View struct {
	Subject string
	Claims  json.RawMessage // a JSON object
	Created time.Time
	// ExpiresIn is the time to the absolute end, IdleExpiresIn to the idle end if
	// the session is not used again.
	ExpiresIn, IdleExpiresIn time.Duration
	// TokenExpiresIn is the rest of the access token's life, 0 if it is over and
	// negative if it lasts as long as the session.
	TokenExpiresIn time.Duration
}

// View tells about the session as it is now. It neither refreshes nor counts as
// use (UI-06).
func (s *Session) View() View {
	now, o := time.Now(), s.tokens.Load()
	end := s.ends(s.app.m.settings.Load(), 0)
	v := View{
		Subject: o.Subject, Claims: o.Claims, Created: s.created,
		ExpiresIn:      max(0, end.absolute.Sub(now)),
		IdleExpiresIn:  max(0, end.told().Sub(now)),
		TokenExpiresIn: -1,
	}
	if !o.TokenExpiry.IsZero() {
		v.TokenExpiresIn = max(0, min(o.TokenExpiry.Sub(now), end.absolute.Sub(now)))
	}
	return v
}

// LogoutSID authorises logout by GET: an HMAC of the session, so that nobody else
// can make the link (CSRF-10).
func (s *Session) LogoutSID() string {
	m := s.app.m.settings.Load().keys.MAC("logout", string(s.key[:]))
	return base64.RawURLEncoding.EncodeToString(m[:])
}

// ValidLogoutSID checks a LogoutSID in constant time, by every key.
func (s *Session) ValidLogoutSID(sid string) bool {
	got, err := base64.RawURLEncoding.DecodeString(sid)
	if err != nil {
		return false
	}
	valid := false
	for _, m := range s.app.m.settings.Load().keys.MACs("logout", string(s.key[:])) {
		valid = hmac.Equal(got, m[:]) || valid
	}
	return valid
}

// State changes when the session becomes another, and tells nothing else.
func (s *Session) State() string {
	m := s.app.m.settings.Load().keys.MAC("state", string(s.key[:]))
	return base64.RawURLEncoding.EncodeToString(m[:16])
}

// AccessToken returns an access token to send now. Where it has run out, the
// call waits for the one refresh of this session, for as long as ctx lives.
//
// *Ended: the session is over. *Unavailable: there is no token now, but there
// still is a session. *StoreError. Else the error of ctx.
func (s *Session) AccessToken(ctx context.Context) (*AccessToken, error) {
	if end := s.end.Load(); end != nil {
		return nil, end
	}
	o := s.tokens.Load()
	now := time.Now()
	if now.UnixNano() < o.refreshAt {
		return o.access, nil
	}
	if o.valid(now) {
		s.app.m.refreshAhead(s, o, now)
		return o.access, nil
	}
	return s.app.m.refreshed(ctx, s, o.need())
}

// need is the generation a token must be beyond, to be of more use than this one.
func (o *opened) need() uint64 {
	if o.Unverified != "" {
		return o.Generation - 1
	}
	return o.Generation
}

// renewPause is how long after one refresh that an upstream's 401 led to there
// is no other: a token that is fresh and refused will not get better.
const renewPause = 5 * time.Minute

// ErrNoRenewal: there is no better token to be had; pass the upstream's 401 on.
var ErrNoRenewal = errors.New("session: no renewal")

// Renew returns a token to try after an upstream refused the one that was sent
// as invalid_token (RFC 6750, section 3.1): the stored one if it is newer, else
// that of one refresh. ErrNoRenewal, or the errors of AccessToken.
func (s *Session) Renew(ctx context.Context, sent *AccessToken) (*AccessToken, error) {
	if end := s.end.Load(); end != nil {
		return nil, end
	}
	o := s.tokens.Load()
	if o.Generation > sent.generation && o.valid(time.Now()) {
		return o.access, nil
	}
	if o.RefreshToken == "" {
		return nil, ErrNoRenewal
	}
	former, tried := s.renewal(sent)
	if tried == nil {
		return nil, ErrNoRenewal
	}
	token, err := s.app.m.refreshed(ctx, s, sent.generation)
	if err != nil && ctx.Err() == nil { // who hangs up may have brought a fresh token
		s.renewed.CompareAndSwap(tried, former) // an outage is none
	}
	return token, err
}

// renewal is a refresh that an upstream's 401 led to.
type renewal struct {
	at     time.Time
	beyond uint64 // generation of the token that was refused
}

// renewal notes that a token was refused, unless a renewal brought it just now. All
// whose older token was refused share that renewal: they may come before its
// refresh has begun and after it has ended. former is what tried took the place
// of.
func (s *Session) renewal(sent *AccessToken) (former, tried *renewal) {
	now := time.Now()
	for {
		last := s.renewed.Load()
		if last != nil && now.Sub(last.at) < renewPause {
			if sent.generation > last.beyond && !s.app.m.refreshing(s.key) {
				return nil, nil
			}
			return last, last
		}
		next := &renewal{now, sent.generation}
		if s.renewed.CompareAndSwap(last, next) {
			return last, next
		}
	}
}
