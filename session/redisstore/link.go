package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

const (
	// maxCalls is how many may wait for the server at a time. It is what one
	// connection can have under way.
	maxCalls = 1024
	// reconnect is the pause between attempts to find the servers.
	reconnect = 250 * time.Millisecond
	// repeat is the pause before something is sent again.
	repeat = 10 * time.Millisecond
)

var (
	errClosed = errors.New("redisstore: closed")
	errAnswer = errors.New("the server answers what was not asked")
	errSilent = errors.New("the server does not answer in time")
)

// unknown makes an error of the third kind of what a server or the network said.
func unknown(op string, err error) error {
	var said *rueidis.RedisError
	if errors.As(err, &said) {
		return fmt.Errorf("redisstore: %s: %w", op, serverError(said.Error()))
	}
	return fmt.Errorf("redisstore: %s: %w", op, err)
}

// serverError is what a server said.
type serverError string

func (e serverError) Error() string {
	text, _, _ := strings.Cut(string(e), "\n")
	// It may quote the command: keys, sealed data, or the password of a HELLO.
	text, _, _ = strings.Cut(text, ", with args beginning with")
	if strings.HasPrefix(text, "MOVED ") {
		text += " (the server is part of a Cluster, and set up as if it were not)"
	}
	return text
}

// link is the client of the servers. There is none until they could be reached
// once; from then on it finds its way back by itself.
type link struct {
	options rueidis.ClientOption

	mu     sync.Mutex // guards what follows, and is held while it is made
	client rueidis.Client
	failed error
	tried  time.Time
}

func (l *link) get() (rueidis.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil {
		return l.client, nil
	}
	if l.failed != nil && time.Since(l.tried) < reconnect {
		return nil, l.failed
	}
	l.tried = time.Now()
	client, err := rueidis.NewClient(l.options)
	if err != nil {
		if client != nil {
			client.Close()
		}
		l.failed = err
		return nil, err
	}
	l.client, l.failed = client, nil
	return client, nil
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil {
		l.client.Close()
	}
}

// command builds what is sent; a script in whole, or as the server may know it. It
// may be built again to be sent again, so what it builds of is its own.
type command func(b rueidis.Builder, whole bool) rueidis.Completed

// enter admits a call; without an error its caller has to s.mu.RUnlock.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("redisstore: not begun: %w", err)
	}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return errClosed
	}
	return nil
}

// ask sends commands in one go and returns an answer to each. An error is of the
// third kind; so is one that an answer holds, unless the caller knows better.
func (s *Store) ask(ctx context.Context, op string, cmds []command) ([]rueidis.RedisResult, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	return s.exchange(ctx, op, s.plain(cmds))
}

// exchange lets work ask the servers, for a call that was admitted. It returns when
// ctx ends or the time-out is over, whatever becomes of the commands: rueidis itself
// waits longer than that for a connection, and for a place in its queue.
func (s *Store) exchange(ctx context.Context, op string, work work) ([]rueidis.RedisResult, error) {
	// Some nodes of a Cluster may have answered when the time-out is over: what they
	// said is waited for a little.
	hard, cancel := context.WithTimeout(ctx, s.opts.Timeout+s.opts.Timeout/4)
	defer cancel()
	select {
	case s.room <- struct{}{}:
	case <-hard.Done():
		return nil, unknown(op, over(ctx))
	}
	done := make(chan outcome, 1)
	s.calls.Add(1)
	go func() {
		defer s.calls.Done()
		defer func() { <-s.room }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.Timeout)
		defer cancel()
		answers, err := work(ctx)
		done <- outcome{answers, ours(err)}
	}()
	select {
	case out := <-done:
		if out.err != nil {
			return nil, unknown(op, out.err)
		}
		return out.answers, nil
	case <-hard.Done():
		return nil, unknown(op, over(ctx))
	}
}

// over is why a call ended that has ended before its time: by its caller, or by
// our time-out. The latter is no DeadlineExceeded, which callers take for theirs.
func over(ctx context.Context) error {
	if err := ctx.Err(); err != nil && context.Cause(ctx) != errSilent {
		return err
	}
	return errSilent
}

// ours is an error of a context that the time-out ended, and not the caller.
func ours(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errSilent
	}
	return err
}

// work asks the servers.
type work func(ctx context.Context) ([]rueidis.RedisResult, error)

// outcome is what became of commands.
type outcome struct {
	answers []rueidis.RedisResult
	err     error
}

// plain is the work of sending commands.
func (s *Store) plain(cmds []command) work {
	return func(ctx context.Context) ([]rueidis.RedisResult, error) {
		client, err := s.link.get()
		if err != nil {
			return nil, err
		}
		return send(ctx, client, cmds), nil
	}
}

// send sends the commands, and again those that were not done: scripts that a
// server did not know, and what a Cluster is moving the keys of.
func send(ctx context.Context, client rueidis.Client, cmds []command) []rueidis.RedisResult {
	answers := make([]rueidis.RedisResult, len(cmds))
	todo := make([]int, len(cmds))
	for i := range todo {
		todo[i] = i
	}
	for whole := false; ; whole = true {
		built := make(rueidis.Commands, len(todo))
		for i, n := range todo {
			built[i] = cmds[n](client.B(), whole)
		}
		var again []int
		var moving bool
		for i, answer := range do(ctx, client, built) {
			if err := answer.NonRedisError(); err != nil {
				answer = rueidis.NewErrorResult(ours(err))
			}
			answers[todo[i]] = answer
			if said, ok := rueidis.IsRedisErr(answer.Error()); ok && (said.IsTryAgain() || said.IsNoScript() && !whole) {
				again = append(again, todo[i])
				moving = moving || said.IsTryAgain()
			}
		}
		if len(again) == 0 || moving && !pause(ctx, repeat) {
			return answers
		}
		todo = again
	}
}

func do(ctx context.Context, client rueidis.Client, cmds rueidis.Commands) []rueidis.RedisResult {
	if len(cmds) == 1 {
		return []rueidis.RedisResult{client.Do(ctx, cmds[0])}
	}
	return client.DoMulti(ctx, cmds...)
}

// pause waits, and tells whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// tell sends a command of whose answer only its error counts.
func (s *Store) tell(ctx context.Context, op string, cmd command) error {
	answers, err := s.ask(ctx, op, []command{cmd})
	if err != nil {
		return err
	}
	if err := answers[0].Error(); err != nil {
		return unknown(op, err)
	}
	return nil
}

// read is ask for commands that change nothing: where a connection broke, they
// are sent once more. A server that was restarted is not noticed otherwise.
func (s *Store) read(ctx context.Context, op string, cmds []command) ([]rueidis.RedisResult, error) {
	answers, err := s.ask(ctx, op, cmds)
	if err != nil || !broken(answers) || !pause(ctx, repeat) {
		return answers, err
	}
	return s.ask(ctx, op, cmds)
}

func broken(answers []rueidis.RedisResult) bool {
	return slices.ContainsFunc(answers, func(a rueidis.RedisResult) bool { return isBroken(a.NonRedisError()) })
}

// isBroken tells an error of the connection.
func isBroken(err error) bool {
	_, said := rueidis.IsRedisErr(err)
	return err != nil && !said && !errors.Is(err, errSilent)
}

// readTracked reads a key so that its next change is told (following.read), and
// once more where the connection broke.
func (s *Store) readTracked(ctx context.Context, op string, n int, name string, before ...command) ([]rueidis.RedisResult, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	return s.exchange(ctx, op, func(ctx context.Context) ([]rueidis.RedisResult, error) {
		answers, err := s.following.read(ctx, n, name, before...)
		if !isBroken(err) || !pause(ctx, repeat) {
			return answers, err
		}
		return s.following.read(ctx, n, name, before...)
	})
}
