package session

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"
)

// RemoteLogout is a logout that the provider tells of.
type RemoteLogout struct {
	Reason Reason // BackChannel or FrontChannel
	// BeganBefore, unless zero, spares sessions whose login began then or later. A
	// login that began before and is still under way will not start a session: this
	// is stored, so whoever sets it has verified who asks.
	BeganBefore time.Time
	// KeepTokens leaves refresh tokens to run out.
	KeepTokens bool
}

// markLife is longer than any login can be under way.
const markLife = 30 * time.Minute

// EndSID ends the sessions of a session of the provider's, and tells how many.
// *StoreError: some may live.
func (a *App) EndSID(ctx context.Context, sid string, l RemoteLogout) (int, error) {
	return a.endRemotely(ctx, "sid", sid, l)
}

// EndSubject ends all sessions of a user at this issuer and client, and tells how
// many. *StoreError: some may live.
func (a *App) EndSubject(ctx context.Context, sub string, l RemoteLogout) (int, error) {
	return a.endRemotely(ctx, "sub", sub, l)
}

func (a *App) endRemotely(ctx context.Context, kind, value string, l RemoteLogout) (int, error) {
	ctx, cancel := finishing(ctx)
	defer cancel()
	tags := a.everyTag(kind, value)
	// First the mark: between it and the ends no session slips through (BC-12).
	if !l.BeganBefore.IsZero() {
		for _, tag := range tags {
			if err := a.m.store.Mark(ctx, tag, Mark{l.Reason, l.BeganBefore, time.Now().Add(markLife)}); err != nil {
				return 0, unknown(err)
			}
		}
	}
	n := 0
	for _, tag := range tags {
		endings, err := a.m.store.EndTagged(ctx, tag, l.Reason, Scope{BeganBefore: l.BeganBefore})
		a.m.endings(endings, l.KeepTokens)
		n += len(endings)
		if err != nil {
			a.doubt(kind, value)
			return n, unknown(err)
		}
	}
	return n, nil
}

// doubt has the store asked again about whatever is in memory of the sessions
// that carry a tag: they may have ended.
func (a *App) doubt(kind, value string) {
	tagged := func(s *Session) bool {
		return s.app.cfg.Issuer == a.cfg.Issuer && s.app.cfg.ClientID == a.cfg.ClientID && s.is(kind, value)
	}
	for _, s := range append(a.m.cache.those(tagged), a.m.watches.those(tagged)...) {
		a.m.drop(s, nil)
	}
}

// is tells whether the session has the tag of a kind and a value.
func (s *Session) is(kind, value string) bool {
	switch kind {
	case "app":
		return s.app.cfg.Origin == value
	case "sub":
		return s.tokens.Load().Subject == value
	}
	return s.tokens.Load().SID == value
}

// everyTag is tag by every key: what a look-up tries.
func (a *App) everyTag(kind, value string) []Tag {
	var tags []Tag
	for _, mac := range a.Keys().MACs("tag", kind, a.cfg.Issuer, a.cfg.ClientID, value) {
		tags = append(tags, Tag(mac))
	}
	return tags
}

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
	lease, err := a.m.store.Acquire(wait, Key(sha256.Sum256(append(tag[:], "cap"...))), leaseTTL)
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
