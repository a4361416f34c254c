package session

import (
	"context"
	"time"
)

const (
	// stoodStill is how late a timer is in a process that did not run.
	stoodStill = 250 * time.Millisecond
	// lastLook is how long such a process gets to read what came meanwhile.
	lastLook = time.Second
)

// Within bounds a call of the provider. A process that stood still, and wakes when the time is over,
// may have its answer waiting: it is read before it is given up, as the only copy
// of a refresh token may be in it.
func Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	over := func() { cancel(context.DeadlineExceeded) }
	due := time.Now().Add(d)
	timer := time.AfterFunc(d, func() {
		if time.Since(due) > stoodStill {
			time.AfterFunc(lastLook, over)
			return
		}
		over()
	})
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}
