package session_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"sessiongate/session"
)

func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		ctx, cancel := session.Within(t.Context(), time.Minute)
		defer cancel()
		<-ctx.Done()
		if took := time.Since(begun); took != time.Minute || context.Cause(ctx) != context.DeadlineExceeded {
			t.Errorf("over after %v by %v, want a minute and %v", took, context.Cause(ctx), context.DeadlineExceeded)
		}
		ctx, cancel = session.Within(t.Context(), time.Minute)
		cancel()
		if ctx.Err() == nil {
			t.Error("it goes on after it was cancelled")
		}
	})
}
