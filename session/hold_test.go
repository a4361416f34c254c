package session_test

import (
	"context"
	"errors"
	"net/http/httptrace"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"sessiongate/session"
)

// slow is a provider that is long on the way: connecting before the request is
// written, or answering after.
type slow struct {
	refresher
	connecting, answering time.Duration
}

func (s slow) Refresh(ctx context.Context, token string) (*oauth2.Token, error) {
	select {
	case <-time.After(s.connecting):
		httptrace.ContextClientTrace(ctx).WroteHeaders()
	case <-ctx.Done():
		return nil, &session.Outage{Err: ctx.Err()} // nobody was asked
	}
	time.Sleep(s.answering)
	return s.refresher.Refresh(ctx, token)
}

// Whoever lost the lease does not send a refresh token that somebody else may be
// sending. A lease lasts five seconds longer than the ten of a token call.
func TestALeaseThatIsLost(t *testing.T) {
	for name, test := range map[string]struct {
		still                 time.Duration // how long the process stands still while it sets the mark
		connecting, answering time.Duration
		lost                  bool // before anything was sent
		renews                bool // else the store does not renew leases
	}{
		"before the call":                  {still: 15 * time.Second, lost: true},
		"while the call connects":          {still: 8 * time.Second, connecting: 9 * time.Second, lost: true},
		"after the call was written":       {still: 8 * time.Second, answering: 9 * time.Second},
		"never, while the call is fast":    {still: 8 * time.Second},
		"never, while it is renewed":       {still: 8 * time.Second, connecting: 9 * time.Second, renews: true},
		"to a store that renews it at end": {still: 14 * time.Second, connecting: 2 * time.Second, renews: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logs logBuffer
				b := newBench(t, inMemory, logs.use, func(b *bench) {
					b.app.Refresher = slow{refresher{b.provider}, test.connecting, test.answering}
				})
				c := b.login()
				time.Sleep(tokenTTL)
				var marked atomic.Bool
				b.store.set(func(op string) error {
					switch {
					case op == "replace" && marked.CompareAndSwap(false, true):
						time.Sleep(test.still)
					case op == "renew" && !test.renews:
						return errDown
					}
					return nil
				})
				_, err := b.token(c)
				var later *session.Unavailable
				if test.lost != errors.Is(err, session.ErrLeaseLost) || test.lost != errors.As(err, &later) {
					t.Errorf("error = %v, want a lost lease: %v", err, test.lost)
				}
				want := map[bool]int{true: 0, false: 1}[test.lost]
				if calls, _ := b.provider.seen(); calls != want {
					t.Errorf("%d token calls, want %d", calls, want)
				}
				b.store.set(nil)
				b.mustToken(c)
				if calls, reuses := b.provider.seen(); calls != 1 || reuses != 0 {
					t.Errorf("%d token calls and %d reuses in the end, want one and none", calls, reuses)
				}
				for event, want := range map[string]int{"lease_lost": 1 - want, "refresh_ambiguous": 0, "refresh_failed": 0} {
					if n := logs.count(event); n != want {
						t.Errorf("%d times %s, want %d", n, event, want)
					}
				}
			})
		})
	}
}
