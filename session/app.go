package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/url"
	"time"
)

// AppConfig says whose sessions an App keeps and how they are refreshed.
type AppConfig struct {
	Origin           string // scheme://host[:port]
	Issuer, ClientID string
	Refresher        Refresher
	// RefreshAhead is how long before its expiry an access token is refreshed.
	RefreshAhead time.Duration
	// TokenTimeout is the deadline of one call of the Refresher.
	TokenTimeout time.Duration
	// KeepTokens: a back-channel logout leaves tokens to run out.
	KeepTokens bool
	// MaxPerUser is how many sessions a user may have; a login beyond ends the
	// oldest. 0: any number.
	MaxPerUser int
	Cookie     CookieConfig
}

// App keeps the sessions of one single-page app. A session belongs to an app's
// (origin, issuer, client_id): it is sealed together with them, and unknown to
// any other app (SES-17).
type App struct {
	m          *Manager
	cfg        AppConfig
	secure     bool
	signedName string // what the cookie's signature covers besides the id
	bound      string // what Data is sealed together with, besides the key
	binding    [32]byte
	provider   breaker
	// revoking holds an element for each call of Revoke under way.
	revoking chan struct{}
}

// NewApp adds an app, or replaces the one of the same origin: after a reload
// open sessions are read from the store again.
func (m *Manager) NewApp(cfg AppConfig) (*App, error) {
	u, err := url.Parse(cfg.Origin)
	if err != nil || u.Host == "" {
		return nil, errors.New("session: origin " + cfg.Origin + " is not scheme://host")
	}
	if cfg.Refresher == nil || cfg.TokenTimeout <= 0 {
		return nil, errors.New("session: app without refresher or token time-out")
	}
	a := &App{m: m, cfg: cfg, secure: u.Scheme == "https", revoking: make(chan struct{}, maxRevoking)}
	if a.cfg.Cookie.SameSite == 0 {
		a.cfg.Cookie.SameSite = http.SameSiteStrictMode
	}
	if a.cfg.Cookie.Name == "" {
		a.cfg.Cookie.Name = DefaultCookieName
		if !a.secure {
			a.cfg.Cookie.Name = LoopbackCookieName
		}
	}
	a.signedName = string(prefixed(a.cfg.Cookie.Name, cfg.Origin))
	a.bound = string(prefixed(cfg.Origin, cfg.Issuer, cfg.ClientID))
	a.binding = sha256.Sum256([]byte(a.bound))
	m.apps.Store(cfg.Origin, a)
	m.cache.reset()
	return a, nil
}

// Same tells whether both apps' sessions are the same sessions.
func (a *App) Same(other *App) bool { return a.binding == other.binding }

// Keys is the list of keys in force.
func (a *App) Keys() *Keys { return a.m.settings.Load().keys }

// Session finds the session of a request by its cookie. It does not count as
// use.
//
// ErrNone (ErrCookieWithheld), ErrAmbiguousCookie, *Ended, *StoreError.
func (a *App) Session(r *http.Request) (*Session, error) {
	value, n := FindCookie(r.Header, a.cfg.Cookie.Name)
	return a.SessionOf(r, value, n)
}

// SessionOf is Session for those who have called FindCookie already.
func (a *App) SessionOf(r *http.Request, value string, n int) (*Session, error) {
	switch {
	case n > 1:
		return nil, ErrAmbiguousCookie
	case n == 0 && a.withheld(r):
		return nil, ErrCookieWithheld
	case n == 0:
		return nil, ErrNone
	}
	now := time.Now()
	s := a.known(value, now)
	if s == nil {
		return a.load(r.Context(), value)
	}
	if reason := s.ends(a.m.settings.Load(), 0).over(now); reason != "" {
		return a.expire(r.Context(), s, reason)
	}
	return s, nil
}

// known finds a session in memory, if it is there as it is in the store.
func (a *App) known(value string, now time.Time) *Session {
	s := a.m.cache.get(value)
	switch {
	case s == nil || s.app != a:
		return nil
	case !a.m.trusts(s.key, now):
		a.m.cache.drop(s.key, nil)
		return nil
	case a.m.shared != nil && a.m.cache.get(value) != s:
		return nil // the process stood still, and what is trusted now was dropped meanwhile
	}
	return s
}

// withheld tells whether a browser would have kept a Strict cookie back.
func (a *App) withheld(r *http.Request) bool {
	return a.Strict() && r.Method == http.MethodGet &&
		r.Header.Get("Sec-Fetch-Site") == "cross-site" &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// load opens a session that is not in memory.
func (a *App) load(ctx context.Context, cookie string) (*Session, error) {
	id := a.openCookie(cookie)
	if id == nil {
		return nil, ErrNone
	}
	key := Key(sha256.Sum256(id))
	// Read again when the record changed while it was read; after a few times go
	// on with what is true at least now, uncached.
	for range 3 {
		s, err := a.tryLoad(ctx, key, id, cookie)
		if s != nil || err != nil {
			return s, err
		}
	}
	return a.read(ctx, key, id, cookie)
}

func (a *App) tryLoad(ctx context.Context, key Key, id []byte, cookie string) (*Session, error) {
	f := a.m.cache.open(key)
	s, err := a.read(ctx, key, id, cookie)
	if err != nil {
		a.m.cache.giveUp(key, f)
		return s, err
	}
	if s = a.m.cache.put(s, f); s != nil {
		a.m.watches.opened(s)
	}
	return s, nil
}

// read opens the stored session and ends it if the clock or a changed
// configuration say so.
func (a *App) read(ctx context.Context, key Key, id []byte, cookie string) (*Session, error) {
	rec, err := a.m.store.Load(ctx, key)
	if err != nil {
		return nil, a.m.absent(key, err)
	}
	if rec.Binding != a.binding || a.m.retires(rec) {
		return nil, a.endUnopened(ctx, key, Revoked)
	}
	d, err := a.unseal(key, id, rec.Data)
	if err != nil {
		// Not the store's silence: the record is there and was not sealed by this
		// cookie for this key. Whoever swapped records gets no session (ST-03).
		a.m.log.Error("session record cannot be opened", "event", "record_unreadable", "app", a.cfg.Origin, "session", a.m.logID(key), "error", err)
		return nil, ErrNone
	}
	set := a.m.settings.Load()
	s := &Session{app: a, key: key, id: id, cookie: cookie, created: rec.Created, latest: rec.Expires, temper: &temper{app: a}}
	s.used.Store(max(rec.Used.UnixNano(), a.m.touches.pending(key)))
	end := s.ends(set, 0)
	s.tokens.Store(a.open(d, rec.Version, end.absolute))
	if reason := end.over(time.Now()); reason != "" {
		return a.expire(ctx, s, reason)
	}
	return s, nil
}

// absent turns what a store says of a session that is not there into what a
// request is told.
func absent(err error) error {
	var end *Ended
	switch {
	case errors.As(err, &end):
		return end
	case errors.Is(err, ErrAbsent):
		return ErrNone
	}
	return unknown(err)
}

// expire ends a session whose time is over. Of the idle end the store has the
// last word, as another process may have seen use.
func (a *App) expire(ctx context.Context, s *Session, reason Reason) (*Session, error) {
	var c Condition
	if reason == IdleTimeout {
		idle := a.m.settings.Load().idle
		c.UnusedSince = time.Now().Add(-idle - idle/useFraction)
	}
	d, err := a.end(ctx, s, reason, c)
	var down *StoreError
	switch {
	case err == nil:
		a.m.revoke(a, d)
		return nil, &Ended{reason}
	case errors.Is(err, ErrConflict):
		return a.usedElsewhere(ctx, s)
	case errors.As(err, &down) && reason == Lifetime:
		return nil, &Ended{reason} // the clock needs no store
	}
	return nil, absent(err)
}

// usedElsewhere goes on with a session that seemed idle and is not.
func (a *App) usedElsewhere(ctx context.Context, s *Session) (*Session, error) {
	rec, err := a.m.store.Load(ctx, s.key)
	if err != nil {
		return nil, a.m.absent(s.key, err)
	}
	s.used.Store(rec.Used.UnixNano())
	return s, nil
}

// Logout ends a session, gives its tokens back to the provider, and returns the
// latest ID token. It does not stop when ctx ends: a browser that leaves at once
// is logged out no less. For the provider it waits half a second at most (RV-02).
//
// *Ended, if it was over already; *StoreError.
func (a *App) Logout(ctx context.Context, s *Session) (idToken string, err error) {
	d, err := a.end(ctx, s, Logout, Condition{})
	if err != nil {
		return "", absent(err)
	}
	select {
	case <-a.m.revoke(a, d):
	case <-time.After(revokeWait):
	}
	return d.IDToken, nil
}

// endTimeout bounds the ending of a session in the store.
const endTimeout = 5 * time.Second

// finishing is for an end that has begun: a browser that hangs up must not leave
// it done in the store and known to nobody.
func finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
}

// end is the one way by which a session ends whose cookie is at hand.
func (a *App) end(ctx context.Context, s *Session, reason Reason, c Condition) (*Data, error) {
	ctx, cancel := finishing(ctx)
	defer cancel()
	rec, err := a.m.store.End(ctx, s.key, reason, c)
	var end *Ended
	switch {
	case errors.As(err, &end):
		a.m.drop(s, end)
		return nil, end
	case errors.Is(err, ErrConflict):
		return nil, err
	case err != nil:
		a.m.drop(s, nil) // it may be over, so the store is to be asked again
		return nil, unknown(err)
	}
	a.m.drop(s, &Ended{reason})
	a.m.ended(a.cfg.Origin, s.key, reason)
	d, err := a.unseal(s.key, s.id, rec.Data)
	if err != nil {
		return &Data{}, nil // over all the same; there is no token to revoke
	}
	return d, nil
}

// endUnopened ends a session without looking into it, and tells what a request is
// told then.
func (a *App) endUnopened(ctx context.Context, key Key, reason Reason) error {
	if err := a.endNow(ctx, key, reason); err != nil {
		return err
	}
	return &Ended{reason}
}

// endNow ends a session without looking into it. *Ended, ErrNone: it was over
// already. *StoreError.
func (a *App) endNow(ctx context.Context, key Key, reason Reason) error {
	ctx, cancel := finishing(ctx)
	defer cancel()
	_, err := a.m.store.End(ctx, key, reason, Condition{})
	if err == nil {
		a.m.over(a, Ending{key, a.binding, reason})
		return nil
	}
	err = a.m.absent(key, err)
	var down *StoreError
	if errors.As(err, &down) {
		a.m.forget(key, nil) // it may be over, so the store is to be asked again
	}
	return err
}

// tags are what the session can be found by, without telling whose it is.
func (a *App) tags(sub, sid string) []Tag {
	keys := a.Keys()
	tags := []Tag{a.tag(keys, "app", a.cfg.Origin), a.tag(keys, "sub", sub)}
	if sid != "" {
		tags = append(tags, a.tag(keys, "sid", sid))
	}
	return tags
}

func (a *App) tag(keys *Keys, kind, value string) Tag {
	return Tag(keys.MAC("tag", kind, a.cfg.Issuer, a.cfg.ClientID, value))
}

// Once claims a value for its first user: a state is good for one callback.
//
// ErrExists, *StoreError.
func (a *App) Once(ctx context.Context, kind, value string, until time.Time) error {
	err := a.m.store.Once(ctx, Key(sha256.Sum256(prefixed("once", a.bound, kind, value))), until)
	if errors.Is(err, ErrExists) {
		return err
	}
	return unknown(err)
}

// seal encrypts Data by a key derived from the session id alone, bound to the
// store key and to whom the session belongs: a record moved to another key, or
// read under another app's configuration, does not open (ST-03).
func (a *App) seal(key Key, id []byte, d *Data) []byte {
	told := d.shifted(-a.m.ahead())
	return seal(deriveKey(id, "sessiongate record"), a.aad(key), told.encode())
}

func (a *App) unseal(key Key, id, sealed []byte) (*Data, error) {
	b, err := open(deriveKey(id, "sessiongate record"), a.aad(key), sealed)
	if err != nil {
		return nil, err
	}
	d, err := decodeData(b)
	if err != nil {
		return nil, err
	}
	told := d.shifted(a.m.ahead())
	return &told, nil
}

func (a *App) aad(key Key) []byte { return append(key[:], a.bound...) }
