package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"golang.org/x/oauth2"
)

// Login is what a finished login knows of the session it makes.
type Login struct {
	Subject, SID string
	Claims       json.RawMessage // the claims the SPA may see, a JSON object
	Token        *oauth2.Token
	IDToken      string
	// Former are the sessions of the same browser; the new one replaces them.
	Former []Key
	// FlowBegan is when the browser was sent to the provider.
	FlowBegan time.Time
	// UserAgent and Address describe the browser to its user.
	UserAgent, Address string
}

// Create makes the session of a finished login, under a new id (CB-21), and
// returns the cookie for it. The tokens of sessions it replaces are dropped, not
// revoked: a provider may keep one grant for all of a browser's logins.
//
// *StoreError: nothing was given to the browser.
func (a *App) Create(ctx context.Context, l Login) (*Session, *http.Cookie, error) {
	set := a.m.settings.Load()
	id := make([]byte, idBytes)
	rand.Read(id)
	cookie, err := a.sessionCookie(id, set.lifetime)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	key := Key(sha256.Sum256(id))
	d := Data{
		Subject: l.Subject, SID: l.SID, Claims: l.Claims, IDToken: l.IDToken,
		AccessToken: l.Token.AccessToken, RefreshToken: l.Token.RefreshToken,
		TokenIssued: now, TokenExpiry: l.Token.Expiry, Generation: 1,
	}
	rec := Record{
		Binding: a.binding, Began: l.FlowBegan, Created: now, Expires: now.Add(set.lifetime), Used: now,
		Tags: a.tags(l.Subject, l.SID), Listing: a.sealListing(key, l), Data: a.seal(key, id, &d),
	}
	s := &Session{app: a, key: key, id: id, cookie: cookie.Value, created: now, latest: rec.Expires, temper: &temper{app: a}}
	s.used.Store(now.UnixNano())
	s.tokens.Store(a.open(&d, 1, rec.Expires))

	err = a.capped(ctx, l, func() (Key, error) { return key, a.insert(ctx, s, rec) })
	if errors.Is(err, ErrNone) {
		a.m.revoke(a, &d) // nobody will ever use them
	}
	if err != nil {
		return nil, nil, err
	}
	// What ended it meanwhile has told nobody but the store and the cache. A shared
	// store tells of what was read of it, and this was not yet.
	if s.end.Load() != nil || !a.m.cache.holds(s) {
		if s, err = a.load(ctx, cookie.Value); errors.Is(err, ErrAbsent) {
			return nil, nil, ErrNone
		} else if err != nil {
			_ = a.endUnopened(ctx, key, Replaced) // if it can be: nobody has its cookie
			return nil, nil, err
		}
	}
	for _, former := range l.Former {
		if err := a.endUnopened(ctx, former, Replaced); !isOver(err) {
			_ = a.endUnopened(ctx, key, Replaced) // if it can be: nobody has its cookie
			return nil, nil, err
		}
	}
	return s, cookie, nil
}

// insert puts a new session into store and cache. ErrNone: the provider ended it
// before it was made. *StoreError.
func (a *App) insert(ctx context.Context, s *Session, rec Record) error {
	f := a.m.cache.open(s.key)
	if err := a.m.store.Create(ctx, s.key, rec); err != nil {
		a.m.cache.giveUp(s.key, f)
		if errors.Is(err, ErrAbsent) {
			return ErrNone
		}
		return unknown(err)
	}
	if a.m.shared != nil {
		a.m.cache.giveUp(s.key, f)
		return nil
	}
	a.m.cache.put(s, f) // not if it ended already
	return nil
}

// isOver tells whether an error says for certain that there is no live session.
func isOver(err error) bool {
	return errors.Is(err, ErrAbsent) || errors.Is(err, ErrNone)
}

// capTTL is how long a login keeps others of the same user off that dies.
const capTTL = 15 * time.Second

// capped makes a session while no other session of the same user is made, then
// ends the user's oldest beyond MaxPerUser. Without the lease two logins at once
// would end each other, or none.
func (a *App) capped(ctx context.Context, l Login, create func() (Key, error)) error {
	limit := a.cfg.MaxPerUser
	if limit == 0 {
		_, err := create()
		return err
	}
	tag := a.tag(a.Keys(), "sub", l.Subject)
	wait, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	lease, err := a.m.store.Acquire(wait, Key(sha256.Sum256(append(tag[:], "cap"...))), capTTL)
	if err != nil {
		return unknown(err)
	}
	defer a.m.store.Release(context.WithoutCancel(ctx), lease)
	own, err := create()
	if err != nil {
		return err
	}
	if err := a.trim(ctx, l, own, limit); err != nil {
		_ = a.endUnopened(ctx, own, Replaced) // if it can be: nobody has its cookie
		return err
	}
	return nil
}

// trim ends the user's oldest sessions but its own until there are no more than
// limit. Those that the login replaces do not count: they end anyway.
func (a *App) trim(ctx context.Context, l Login, own Key, limit int) error {
	found, err := a.tagged(ctx, "sub", l.Subject)
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(rec Listed) bool { return rec.Key == own || slices.Contains(l.Former, rec.Key) })
	slices.SortFunc(found, func(p, q Listed) int { return p.Created.Compare(q.Created) })
	for i := 0; i < len(found)-(limit-1); i++ {
		if err := a.endUnopened(ctx, found[i].Key, Replaced); !isOver(err) {
			return err
		}
	}
	return nil
}
