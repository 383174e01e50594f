package wire

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	v1 "daybreak/proto/daybreak/v1"
)

// Both sides may be of another release: what one codec writes the other reads.
func TestCodecIsGRPCs(t *testing.T) {
	ours, theirs := newCodec(), encoding.GetCodecV2("proto")
	if ours.Name() != theirs.Name() {
		t.Errorf("it is called %q", ours.Name())
	}
	// Twice, so that buffers are used again, after others and shorter ones.
	for range 2 {
		for _, size := range []int{2 << 20, 0, 1, 300, 1 << 10, 40 << 10, 128 << 10, 270000, 1 << 20, 5} {
			message := &v1.GetChunksResponse{Chunk: &v1.Chunk{Digest: bytes.Repeat([]byte{7}, 32), Zstd: bytes.Repeat([]byte{9}, size)}}
			for from, to := range map[encoding.CodecV2]encoding.CodecV2{ours: theirs, theirs: ours} {
				data, err := from.Marshal(message)
				if err != nil {
					t.Fatal(err)
				}
				var got v1.GetChunksResponse
				if err := to.Unmarshal(cut(data.Materialize()), &got); err != nil || !proto.Equal(&got, message) {
					t.Errorf("a message of %d bytes comes out other than it was: %v", size, err)
				}
				data.Free()
			}
		}
	}
}

// cut is the message as it comes in: in frames.
func cut(data []byte) (frames mem.BufferSlice) {
	for len(data) > 16<<10 {
		frames, data = append(frames, mem.SliceBuffer(data[:16<<10])), data[16<<10:]
	}
	return append(frames, mem.SliceBuffer(data))
}

func TestCodecRefuses(t *testing.T) {
	c := newCodec()
	if _, err := c.Marshal("no message"); err == nil {
		t.Error("text was encoded")
	}
	if _, err := c.Marshal(&v1.GetManifestRequest{Digest: "\xff"}); err == nil {
		t.Error("a string that is no text was encoded")
	}
	if err := c.Unmarshal(cut([]byte("no message")), &v1.Chunk{}); err == nil {
		t.Error("nonsense was read")
	}
	var text string
	if err := c.Unmarshal(nil, &text); err == nil {
		t.Error("something was read into text")
	}
}
