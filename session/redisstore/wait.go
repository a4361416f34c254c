package redisstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// writers is how many writes wait for replicas at a time, each on a connection of
// its own: whatever else were on it would wait with them.
const (
	writers     = 64
	writersIdle = time.Minute
)

var errTooFew = errors.New("too few replicas have it")

// write is ask for what replicas have to have as well before it is done. It is not
// known to be done before, whatever the server itself answers: a failover could
// undo it, or what it found to be done already.
func (s *Store) write(ctx context.Context, op string, cmds []command) ([]rueidis.RedisResult, error) {
	if s.opts.WaitReplicas == 0 {
		return s.ask(ctx, op, cmds)
	}
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	return s.exchange(ctx, op, func(ctx context.Context) ([]rueidis.RedisResult, error) {
		client, err := s.link.get()
		if err != nil {
			return nil, err
		}
		r := &replicated{f: s.following, client: client, cmds: cmds,
			answers: make([]rueidis.RedisResult, len(cmds)), to: map[int]place{}}
		r.run(ctx)
		return r.answers, nil
	})
}

// replicated are writes that replicas are waited for.
type replicated struct {
	f       *following
	client  rueidis.Client
	cmds    []command
	whole   bool // the scripts
	answers []rueidis.RedisResult
	to      map[int]place // where some of them were sent on to
}

// place is a node of a Cluster, which is importing what is asked for, or has it.
type place struct {
	addr   string
	asking bool
}

func (r *replicated) run(ctx context.Context) {
	todo := make([]int, len(r.cmds))
	for i := range todo {
		todo[i] = i
	}
	for {
		todo = r.send(ctx, todo)
		if len(todo) == 0 || !pause(ctx, repeat) {
			return
		}
	}
}

// send sends some of the commands, each node its own, and returns those that have
// to be sent again.
func (r *replicated) send(ctx context.Context, todo []int) []int {
	whole, at := r.whole, map[place][]int{}
	for _, i := range todo {
		p := r.place(ctx, i)
		at[p] = append(at[p], i)
	}
	var wg sync.WaitGroup
	for p, some := range at {
		wg.Go(func() { r.sendTo(ctx, p, some) })
	}
	wg.Wait()
	var again []int
	for _, i := range todo {
		if r.again(i, whole) {
			again = append(again, i)
		}
	}
	return again
}

// place is where a command goes.
func (r *replicated) place(ctx context.Context, i int) place {
	if !r.f.opts.Cluster {
		return place{}
	}
	if p, ok := r.to[i]; ok {
		return p
	}
	masters := r.f.masters.Load()
	if masters == nil {
		r.f.find(ctx)
		if masters = r.f.masters.Load(); masters == nil {
			return place{}
		}
	}
	built := r.cmds[i](r.client.B(), false)
	return place{addr: masters.master(int(built.Slot()))}
}

// sendTo sends commands to one node, on one connection, and waits there for its
// replicas.
func (r *replicated) sendTo(ctx context.Context, p place, some []int) {
	client := r.client
	if r.f.opts.Cluster {
		if client = client.Nodes()[p.addr]; client == nil {
			r.fail(some, errNowhere)
			return
		}
	}
	b := client.B()
	var built rueidis.Commands
	var of []int // which command an answer is of
	for _, i := range some {
		if p.asking {
			built, of = append(built, b.Asking().Build()), append(of, -1)
		}
		built, of = append(built, r.cmds[i](b, r.whole)), append(of, i)
	}
	built = append(built, b.Wait().Numreplicas(int64(r.f.opts.WaitReplicas)).Timeout(patience(ctx)).Build())
	answers := client.DoMulti(ctx, built...)
	reached, err := answers[len(answers)-1].ToInt64()
	if err == nil && reached < int64(r.f.opts.WaitReplicas) {
		err = fmt.Errorf("%w: %d of %d", errTooFew, reached, r.f.opts.WaitReplicas)
	}
	for n, i := range of {
		if i < 0 {
			continue
		}
		r.answers[i] = answers[n]
		if said := answers[n].Error(); err != nil && (said == nil || rueidis.IsRedisNil(said)) {
			r.answers[i] = rueidis.NewErrorResult(ours(err))
		}
	}
}

func (r *replicated) fail(some []int, err error) {
	for _, i := range some {
		r.answers[i] = rueidis.NewErrorResult(err)
	}
}

// patience is how many milliseconds replicas are waited for: less than the
// time-out, so that there is an answer.
func patience(ctx context.Context) int64 {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 1
	}
	return max(1, (time.Until(deadline) * 3 / 4).Milliseconds())
}

// again tells whether a command was not done, and may be where it is sent next, or
// in whole.
func (r *replicated) again(i int, whole bool) bool {
	err := r.answers[i].Error()
	if errors.Is(err, errNowhere) { // the client will know the node soon
		delete(r.to, i)
		return true
	}
	said, ok := rueidis.IsRedisErr(err)
	if !ok || said.IsNil() {
		return false
	}
	if addr, ok := said.IsMoved(); ok && r.f.opts.Cluster {
		r.to[i] = place{addr: addr}
		return true
	}
	if addr, ok := said.IsAsk(); ok && r.f.opts.Cluster {
		r.to[i] = place{addr: addr, asking: true}
		return true
	}
	if said.IsNoScript() && !whole {
		r.whole = true
		return true
	}
	return said.IsTryAgain()
}
