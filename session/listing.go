package session

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"time"
)

// ErrNoSession: there is no such session, or not for whoever asks.
var ErrNoSession error = &coded{"no_session", "no such session"}

// Listing describes a live session to its user and to operators.
type Listing struct {
	// ID names the session in lists. It opens nothing.
	ID string
	// App is the origin of the app, Address the client's when it logged in.
	App, Subject, UserAgent, Address string
	Created, LastSeen                time.Time
	// Current marks the session that asks.
	Current bool
}

// listed is what is sealed of it, under session.keys.
type listed struct {
	App       string `json:"app"`
	Subject   string `json:"sub"`
	UserAgent string `json:"user_agent"`
	Address   string `json:"address"`
}

func (a *App) sealListing(key Key, l Login) []byte {
	b, _ := json.Marshal(listed{a.cfg.Origin, l.Subject, l.UserAgent, l.Address})
	return []byte(a.Keys().Seal("listing", string(key[:]), b))
}

// listing opens what a record tells of its session. Of one that no key opens only
// the times are known.
func (a *App) listing(rec Listed) Listing {
	var l listed
	if b, err := a.Keys().Open("listing", string(rec.Key[:]), string(rec.Listing)); err == nil {
		_ = json.Unmarshal(b, &l)
	}
	seen := rec.Used
	if at := time.Unix(0, a.m.touches.pending(rec.Key)); at.After(seen) {
		seen = at
	}
	return Listing{
		ID: listID(rec.Key), App: a.cfg.Origin, Subject: l.Subject, UserAgent: l.UserAgent, Address: l.Address,
		Created: rec.Created, LastSeen: seen,
	}
}

func listID(key Key) string { return base64.RawURLEncoding.EncodeToString(key[:]) }

func parseListID(id string) (Key, error) {
	b, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil || len(b) != len(Key{}) || listID(Key(b)) != id { // line breaks would pass, and stray bits
		return Key{}, ErrNoSession
	}
	return Key(b), nil
}

// page is how many sessions are read from the store at a time.
const page = 200

// tagged lists the app's live sessions that carry a tag, made by whichever key.
func (a *App) tagged(ctx context.Context, kind, value string) ([]Listed, error) {
	var all []Listed
	err := a.eachTagged(ctx, kind, value, func(rec Listed) { all = append(all, rec) })
	return all, err
}

// eachTagged calls f for each session that tagged lists.
func (a *App) eachTagged(ctx context.Context, kind, value string, f func(Listed)) error {
	for _, tag := range a.everyTag(kind, value) {
		for after, more := (Key{}), true; more; {
			found, err := a.m.store.Tagged(ctx, tag, after, page)
			if err != nil {
				return unknown(err)
			}
			for _, rec := range found {
				after = rec.Key
				if rec.Binding == a.binding { // the tag may be of another app of this client, too
					f(rec)
				}
			}
			more = len(found) == page
		}
	}
	return nil
}

// Sessions lists the live sessions of a session's user in this app, the newest
// first. *StoreError.
func (a *App) Sessions(ctx context.Context, s *Session) ([]Listing, error) {
	found, err := a.tagged(ctx, "sub", s.tokens.Load().Subject)
	if err != nil {
		return nil, err
	}
	var all []Listing
	for _, rec := range found {
		l := a.listing(rec)
		l.Current = rec.Key == s.key
		all = append(all, l)
	}
	newestFirst(all)
	return all, nil
}

func newestFirst(all []Listing) {
	slices.SortFunc(all, func(p, q Listing) int {
		return cmp.Or(q.Created.Compare(p.Created), cmp.Compare(p.ID, q.ID))
	})
}

// EndListed ends one of the sessions that Sessions lists. ErrNoSession,
// *StoreError.
func (a *App) EndListed(ctx context.Context, s *Session, id string) error {
	key, err := parseListID(id)
	if err != nil {
		return err
	}
	rec, err := a.m.find(ctx, key)
	if err != nil {
		return err
	}
	own := a.everyTag("sub", s.tokens.Load().Subject)
	if rec.Binding != a.binding || !slices.ContainsFunc(own, func(tag Tag) bool { return slices.Contains(rec.Tags, tag) }) {
		return ErrNoSession
	}
	_, err = a.revoked(ctx, key)
	return err
}

// find looks for a session that somebody names. ErrNoSession, *StoreError.
func (m *Manager) find(ctx context.Context, key Key) (Record, error) {
	rec, err := m.store.Load(ctx, key)
	if err = m.absent(key, err); isOver(err) {
		err = ErrNoSession
	}
	return rec, err
}

// revoked ends a session for its user or an operator, and tells whether it lived.
func (a *App) revoked(ctx context.Context, key Key) (bool, error) {
	err := a.endNow(ctx, key, Revoked)
	if isOver(err) {
		return false, nil
	}
	return err == nil, err
}

// EndOthers ends all sessions that Sessions lists but s, and tells how many.
// *StoreError.
func (a *App) EndOthers(ctx context.Context, s *Session) (int, error) {
	return a.endSubject(ctx, s.tokens.Load().Subject, s.key)
}

func (a *App) endSubject(ctx context.Context, sub string, except Key) (int, error) {
	found, err := a.tagged(ctx, "sub", sub)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, rec := range found {
		if rec.Key == except {
			continue
		}
		ended, err := a.revoked(ctx, rec.Key)
		if err != nil {
			return n, err
		}
		if ended {
			n++
		}
	}
	return n, nil
}

// Sessions tells of live sessions one after the other, the newest first: those of
// the app with an origin, those of a subject, or both; "" limits nothing. There may
// be a million: what is kept of all of them at once is when they began.
//
// *StoreError, or what f returns, which ends it.
func (m *Manager) Sessions(ctx context.Context, app, sub string, f func(Listing) error) error {
	type begun struct {
		app *App
		key Key
		at  int64
	}
	var all []begun
	for _, a := range m.appsOf(app) {
		kind, value := "app", a.cfg.Origin
		if sub != "" {
			kind, value = "sub", sub
		}
		err := a.eachTagged(ctx, kind, value, func(rec Listed) {
			all = append(all, begun{a, rec.Key, rec.Created.UnixNano()})
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(all, func(p, q begun) int {
		return cmp.Or(cmp.Compare(q.at, p.at), cmp.Compare(listID(p.key), listID(q.key)))
	})
	for _, b := range all {
		rec, err := m.find(ctx, b.key)
		if errors.Is(err, ErrNoSession) {
			continue // it ended meanwhile
		}
		if err == nil {
			err = f(b.app.listing(Listed{Key: b.key, Record: rec}))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// EndByID ends a session that Sessions lists. ErrNoSession, *StoreError.
func (m *Manager) EndByID(ctx context.Context, id string) error {
	key, err := parseListID(id)
	if err != nil {
		return err
	}
	rec, err := m.find(ctx, key)
	if err != nil {
		return err
	}
	for _, a := range m.appsOf("") {
		if a.binding == rec.Binding {
			_, err := a.revoked(ctx, key)
			return err
		}
	}
	return ErrNoSession // of an app that is configured no more
}

// EndAll ends all sessions of a subject in an app, and tells how many.
// *StoreError.
func (m *Manager) EndAll(ctx context.Context, app, sub string) (int, error) {
	n := 0
	for _, a := range m.appsOf(app) {
		ended, err := a.endSubject(ctx, sub, Key{})
		n += ended
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// appsOf lists the apps in force with an origin, all of them for "".
func (m *Manager) appsOf(origin string) []*App {
	var all []*App
	m.apps.Range(func(_, v any) bool {
		if a := v.(*App); origin == "" || a.cfg.Origin == origin {
			all = append(all, a)
		}
		return true
	})
	return all
}
