package session_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sessiongate/session"
)

// hung is a store whose disk does not answer to writes any more, once it hangs.
type hung struct {
	session.Store
	hangs bool
}

func (h *hung) Touch(ctx context.Context, touches []session.Touch) error {
	if !h.hangs {
		return h.Store.Touch(ctx, touches)
	}
	<-ctx.Done()
	return ctx.Err()
}

// The last uses are written at a shutdown. That takes no longer than the shutdown
// may, whatever the disk does, and is not left out because something else took
// its time.
func TestTheLastUsesAreWrittenInTime(t *testing.T) {
	for name, row := range map[string]struct {
		diskHangs, providerHangs bool
		took                     time.Duration
		wantErr                  error
		stored                   bool
	}{
		"all is well":              {false, false, 0, nil, true},
		"the disk hangs":           {true, false, 10 * time.Second, context.DeadlineExceeded, false},
		"a provider hangs":         {false, true, 9 * time.Second, context.DeadlineExceeded, true},
		"the disk hangs, and both": {true, true, 10 * time.Second, context.DeadlineExceeded, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &hung{Store: newMemory()}
				b := newBench(t, func(b *bench) { b.store.Store = store })
				c, other := b.login(), b.login()
				time.Sleep(10*time.Minute + 300*time.Millisecond) // between two writes of uses
				b.open(c).Use()
				used := time.Now()
				if row.providerHangs {
					b.provider.hang()
					go b.logout(other)
					synctest.Wait()
				}
				store.hangs = row.diskHangs
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				begun := time.Now()
				err := b.manager.Close(ctx)
				if took := time.Since(begun); took != row.took || !errors.Is(err, row.wantErr) {
					t.Errorf("Close: %v after %v, want %v after %v", err, took, row.wantErr, row.took)
				}
				stored := false
				for _, rec := range store.Store.(*memory).live {
					stored = stored || rec.Used.Equal(used)
				}
				if stored != row.stored {
					t.Errorf("the last use was stored: %t, want %t", stored, row.stored)
				}
				store.hangs = false
			})
		})
	}
}
