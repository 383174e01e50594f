// Package wire is how messages become bytes on our connections: grpc's own way, with buffers of sizes that chunks of images fit in.
//
// Here: the codec. Not here: what the messages are (proto/daybreak/v1), who may connect (proto/identity). Whoever makes a server or
// a connection on which images travel uses it.
package wire

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// maxChunk is a little more than the message of the largest chunk.
const maxChunk = 272 << 10

// ServerOption makes a server use the codec.
func ServerOption() grpc.ServerOption { return grpc.ForceServerCodecV2(newCodec()) }

// DialOption makes a connection use the codec.
func DialOption() grpc.DialOption {
	return grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newCodec()))
}

// codec encodes as grpc's own does. That has no buffers between 32 KiB and 1 MiB, and clears all of a buffer before each use: a
// mebibyte on either side for a chunk of 40 KiB.
type codec struct{ buffers mem.BufferPool }

var _ encoding.CodecV2 = codec{}

func newCodec() codec {
	return codec{mem.NewTieredBufferPool(256, 4<<10, 16<<10, 32<<10, 64<<10, 128<<10, maxChunk, 1<<20)}
}

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encode message: %T is none", v)
	}
	buf := c.buffers.Get(proto.Size(m))
	encoded, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend((*buf)[:0], m)
	if err != nil {
		c.buffers.Put(buf)
		return nil, fmt.Errorf("encode message: %w", err)
	}
	*buf = encoded
	return mem.BufferSlice{mem.NewBuffer(buf, c.buffers)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("read message: %T is none", v)
	}
	buf := data.MaterializeToBuffer(c.buffers)
	defer buf.Free()
	if err := proto.Unmarshal(buf.ReadOnlyData(), m); err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	return nil
}

// Name implements encoding.CodecV2: it is the same encoding, and says so to the other side.
func (codec) Name() string { return "proto" }
