package session_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"sessiongate/session"
)

func (p *peer) EndTagged(ctx context.Context, tag session.Tag, reason session.Reason, sc session.Scope) ([]session.Ending, error) {
	endings, err := p.Store.EndTagged(ctx, tag, reason, sc)
	for _, e := range endings {
		p.changed(e.Key)
	}
	return endings, err
}

// The tokens of a session that ends without its cookie are known to who has it in
// memory, and that may be another process than the one that ends it (RV-01, BC-10).
func TestTokensOfASessionThatEndsElsewhere(t *testing.T) {
	for name, test := range map[string]struct {
		end     func(t *testing.T, b *bench)
		keep    bool
		revoked bool
	}{
		"an operator's revocation": {func(t *testing.T, b *bench) {
			if n, err := b.manager.EndAll(t.Context(), origin, "ada"); n != 1 || err != nil {
				t.Errorf("EndAll = %d, %v, want 1", n, err)
			}
		}, true, true},
		"a back-channel logout": {func(t *testing.T, b *bench) { endAda(t, b, session.BackChannel) }, false, true},
		"a back-channel logout, of an app whose tokens outlive it": {func(t *testing.T, b *bench) { endAda(t, b, session.BackChannel) }, true, false},
		"a front-channel logout":                                   {func(t *testing.T, b *bench) { endAda(t, b, session.FrontChannel) }, true, true},
		"a newer login": {func(t *testing.T, b *bench) {
			b.login(func(l *session.Login) { l.Former = formerOf(t, b) })
		}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one := newBench(t, inMemory, func(b *bench) { b.app.KeepTokens = test.keep })
				sv := newServer()
				here, there := sv.process(one), sv.process(one)
				var token string
				c := here.login(func(l *session.Login) { token = l.Token.RefreshToken })
				here.mustToken(c)
				test.end(t, there)
				synctest.Wait()
				want := []string{token}
				if !test.revoked {
					want = nil
				}
				if got := here.provider.takenBack(); !slices.Equal(got, want) {
					t.Errorf("%d tokens were revoked, want %d", len(got), len(want))
				}
			})
		})
	}
}

// A stream holds a session open that is not in the cache any more.
func TestTokensOfAStreamWhoseSessionEndsElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newBench(t, inMemory)
		sv := newServer()
		here, there := sv.process(one), sv.process(one)
		var token string
		c := here.login(func(l *session.Login) { token = l.Token.RefreshToken })
		stop, err := here.open(c).Watch(t.Context(), session.Watcher{Ended: func(session.Reason) {}})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		here.forget()
		endAda(t, there, session.Revoked)
		synctest.Wait()
		if got := here.provider.takenBack(); !slices.Equal(got, []string{token}) {
			t.Errorf("%d tokens were revoked, want that of the stream's session", len(got))
		}
	})
}

func endAda(t *testing.T, b *bench, reason session.Reason) {
	t.Helper()
	if n, err := b.EndSubject(t.Context(), "ada", session.RemoteLogout{Reason: reason}); n != 1 || err != nil {
		t.Errorf("EndSubject = %d, %v, want 1", n, err)
	}
}

// formerOf are the keys of all sessions there are.
func formerOf(t *testing.T, b *bench) (keys []session.Key) {
	t.Helper()
	for key := range b.config.Store.(*peer).read {
		keys = append(keys, key)
	}
	if len(keys) != 1 {
		t.Errorf("%d sessions were read, want 1", len(keys))
	}
	return keys
}
