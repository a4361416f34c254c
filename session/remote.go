package session

import (
	"context"
	"time"
)

// RemoteLogout is a logout that the provider tells of.
type RemoteLogout struct {
	Reason Reason // BackChannel or FrontChannel
	// BeganBefore, unless zero, spares sessions whose login began then or later. A
	// login that began before and is still under way will not start a session: this
	// is stored, so whoever sets it has verified who asks.
	BeganBefore time.Time
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
		a.m.endings(endings)
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
