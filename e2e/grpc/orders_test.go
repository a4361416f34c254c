package grpc

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// orders is the API behind the gateway. Its messages are strings: what they are is nothing to the gateway.
type orders struct {
	began chan string // what a call said first that waits for its end
	done  chan error  // why such a call ended
}

type text = wrapperspb.StringValue

// service describes orders under a name, as protoc would.
func service(name string) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: name,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Get", Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in text
			if err := decode(&in); err != nil {
				return nil, err
			}
			return srv.(*orders).get(ctx, &in)
		}}},
		Streams: []grpc.StreamDesc{
			{StreamName: "List", ServerStreams: true, Handler: func(srv any, s grpc.ServerStream) error { return srv.(*orders).list(s) }},
			{StreamName: "Collect", ClientStreams: true, Handler: func(srv any, s grpc.ServerStream) error { return srv.(*orders).collect(s) }},
			{StreamName: "Chat", ServerStreams: true, ClientStreams: true, Handler: func(srv any, s grpc.ServerStream) error { return srv.(*orders).chat(s) }},
			{StreamName: "Wait", ServerStreams: true, ClientStreams: true, Handler: func(srv any, s grpc.ServerStream) error { return srv.(*orders).wait(s) }},
		},
	}
}

// get tells what it was asked, and by what metadata.
func (o *orders) get(ctx context.Context, in *text) (*text, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if in.Value == "missing" {
		return nil, status.Error(codes.NotFound, "no order: 100 % gone, müde")
	}
	if in.Value == "slow" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-header", "h", "x-header-bin", "\x00\xff"))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "t", "x-trailer-bin", "\xff\x00", "x-sessiongate", "1"))
	var saw strings.Builder
	for _, name := range []string{"authorization", "cookie", "x-csrf", "x-note", "x-note-bin", "x-forwarded-host", "grpc-timeout"} {
		fmt.Fprintf(&saw, "%s=%q ", name, md.Get(name))
	}
	return wrapperspb.String(in.Value + " " + saw.String()), nil
}

func (o *orders) list(s grpc.ServerStream) error {
	var in text
	if err := s.RecvMsg(&in); err != nil {
		return err
	}
	for i := range 3 {
		if err := s.SendMsg(wrapperspb.String(fmt.Sprint(in.Value, i))); err != nil {
			return err
		}
	}
	return nil
}

func (o *orders) collect(s grpc.ServerStream) error {
	var all []string
	for {
		var in text
		switch err := s.RecvMsg(&in); err {
		case nil:
			all = append(all, in.Value)
		case io.EOF:
			return s.SendMsg(wrapperspb.String(strings.Join(all, "+")))
		default:
			return err
		}
	}
}

func (o *orders) chat(s grpc.ServerStream) error {
	for {
		var in text
		switch err := s.RecvMsg(&in); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
		if err := s.SendMsg(wrapperspb.String("re: " + in.Value)); err != nil {
			return err
		}
	}
}

// wait answers the first message, if that is "hello", and then waits for the end of the call.
func (o *orders) wait(s grpc.ServerStream) error {
	var in text
	if err := s.RecvMsg(&in); err != nil {
		o.done <- s.Context().Err()
		return err
	}
	o.began <- in.Value
	if in.Value == "hello" {
		if err := s.SendMsg(&in); err != nil {
			return err
		}
	}
	if deadline, ok := s.Context().Deadline(); in.Value == "deadline" && (!ok || time.Until(deadline) > time.Minute) {
		o.done <- fmt.Errorf("deadline %v, %v", deadline, ok)
	}
	<-s.Context().Done()
	o.done <- s.Context().Err()
	return s.Context().Err()
}
