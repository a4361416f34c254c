package redisstore

import (
	"context"
	"slices"
	"strings"

	"github.com/redis/rueidis"
)

// read reads a key so that its next change is told, and answers commands of the
// same slot that are carried out before. It fails if the server would not write: a
// master that was cut off from its replicas may know less than the one that others
// have by now.
func (f *following) read(ctx context.Context, n int, name string, before ...command) ([]rueidis.RedisResult, error) {
	probe := command(func(b rueidis.Builder, _ bool) rueidis.Completed {
		return b.Del().Key(f.layout.in(n).base + "probe").Build()
	})
	get := func(b rueidis.Builder, _ bool) rueidis.Completed { return b.Get().Key(name).Build() }
	for {
		nd, err := f.at(ctx, n)
		if err != nil {
			return nil, err
		}
		sent := f.now()
		answers, err := nd.ask(ctx, append(append([]command{probe}, before...), tracked, get))
		if err != nil {
			return nil, err
		}
		_, writes := answers[0].ToInt64()
		value := answers[len(answers)-1]
		if addr, ok := isMoved(writes); ok && f.opts.Cluster {
			f.moved(nd, n, addr)
			if pause(ctx, repeat) {
				continue
			}
			return nil, errSilent
		}
		if slices.ContainsFunc(answers[1:], func(a rueidis.RedisResult) bool { return isAsk(a.Error()) }) {
			return f.readMoving(ctx, n, append(before, get))
		}
		switch {
		case writes == nil:
			f.prove(nd, sent, n)
		case !isAsk(writes) && !isMisconf(writes): // the one says nothing, the other something about the disk
			return nil, writes
		}
		return append(answers[1:len(answers)-2:len(answers)-2], value), nil
	}
}

// tracked makes the next command's key one whose change is told.
func tracked(b rueidis.Builder, _ bool) rueidis.Completed {
	return b.Arbitrary("CLIENT", "CACHING", "YES").Build()
}

// readMoving reads what is on its way to another server.
func (f *following) readMoving(ctx context.Context, n int, cmds []command) ([]rueidis.RedisResult, error) {
	f.underWay(n)
	client, err := f.link.get()
	if err != nil {
		return nil, err
	}
	return send(ctx, client, cmds), nil
}

func isMoved(err error) (addr string, ok bool) {
	if said, ok := rueidis.IsRedisErr(err); ok {
		return said.IsMoved()
	}
	return "", false
}

func isAsk(err error) bool {
	said, ok := rueidis.IsRedisErr(err)
	if !ok {
		return false
	}
	_, ok = said.IsAsk()
	return ok
}

func isMisconf(err error) bool {
	said, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(said.Error(), "MISCONF")
}
