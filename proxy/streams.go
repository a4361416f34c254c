package proxy

import (
	"context"
	"errors"
	"io"
)

// stream is the upstream's side of a stream: it goes on until either side ends
// it, or the gateway does.
type stream struct {
	upstream io.ReadCloser // a WebSocket's writes, too
	ending   context.Context
	stop     func() bool
}

// endWith makes a body end when ctx does. To the browser that is the end of the
// answer, not its breaking off: an EventSource comes again.
func endWith(ctx context.Context, upstream io.ReadCloser) *stream {
	s := &stream{upstream: upstream, ending: ctx}
	s.stop = context.AfterFunc(ctx, func() { upstream.Close() })
	return s
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.upstream.Read(p)
	if err != nil && s.ending.Err() != nil {
		err = io.EOF
	}
	return n, err
}

func (s *stream) Write(p []byte) (int, error) {
	w, ok := s.upstream.(io.Writer)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	return w.Write(p)
}

func (s *stream) Close() error {
	s.stop()
	return s.upstream.Close()
}
