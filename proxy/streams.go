package proxy

import (
	"context"
	"errors"
	"io"
)

// stream is the upstream's side of a stream: it goes on until either side ends
// it, or the gateway does.
type stream struct {
	upstream io.ReadCloser
	tunnel   io.Writer // the same, if it is a WebSocket's; else nil
	ending   context.Context
	stop     func() bool
}

// endWith makes a stream end when ctx does.
func endWith(ctx context.Context, upstream io.ReadCloser) *stream {
	s := &stream{upstream: upstream, ending: ctx}
	s.tunnel, _ = upstream.(io.Writer)
	s.stop = context.AfterFunc(ctx, func() { upstream.Close() })
	return s
}

// Read makes the end of an event stream an end, not a breaking off: it is the
// browser's to come again. A tunnel has to break off, as after an end it would
// wait for the browser to end its side.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.upstream.Read(p)
	if err != nil && s.tunnel == nil && s.ending.Err() != nil {
		err = io.EOF
	}
	return n, err
}

func (s *stream) Write(p []byte) (int, error) {
	if s.tunnel == nil {
		return 0, errors.ErrUnsupported
	}
	return s.tunnel.Write(p)
}

func (s *stream) Close() error {
	s.stop()
	return s.upstream.Close()
}
