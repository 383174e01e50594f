package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"

	"daybreak/api"
	"daybreak/api/pki"
	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// storyHost is the uid of the host kvm1 of stories.
const storyHost = "11111111-1111-4111-8111-111111111111"

// sessions stands for the hosts: it has one picture for one desktop, and an agent on kvm1 that plays builds.
type sessions struct {
	api.Sessions
	ctx    context.Context // of the story: its agents end with it
	agents v1.AgentServiceClient
	codec  *images.Codec
}

// connectAgent gives the stories' hosts their way to the control plane.
func connectAgent(ca *pki.CA, address string) (*grpc.ClientConn, error) {
	c, err := enter(ca, pki.Identity{Name: "kvm1", Role: v1.Role_ROLE_HOST, HostUID: storyHost}, time.Now())
	if err != nil {
		return nil, err
	}
	c.Server = address
	return c.Dial()
}

// CallBuild lets the agent play the build that it is called to.
func (s *sessions) CallBuild(_ context.Context, _, id string, _ *v1.BuildAsk) error {
	stream, err := s.agents.Build(s.ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Id{Id: id}}); err != nil {
		return err
	}
	go func() { // ends with the stream
		outcome, err := s.play(stream)
		if err != nil {
			outcome = &v1.BuildOutcome{Error: err.Error()}
		}
		_ = stream.Send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Outcome{Outcome: outcome}})
		_, _ = stream.Recv()
	}()
	return nil
}

func (s *sessions) play(stream v1.AgentService_BuildClient) (*v1.BuildOutcome, error) {
	task, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	order := task.GetAssignment().GetOrder()
	output := func(format string, args ...any) {
		_ = stream.Send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Output{Output: fmt.Appendf(nil, format, args...)}})
	}
	progress := func(p *v1.BuildProgress) {
		_ = stream.Send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Progress{Progress: p}})
	}
	progress(&v1.BuildProgress{Text: "booting the VM"})
	if order.GetKind() == v1.BuildKind_BUILD_KIND_CHECK {
		return &v1.BuildOutcome{Check: "golden, in 9 s", Packages: "hello 2.10\n"}, nil
	}
	for _, file := range order.GetFiles() {
		var content []byte
		for uint64(len(content)) < file.GetSize() {
			if task, err = stream.Recv(); err != nil {
				return nil, err
			}
			content = append(content, task.GetFilePiece()...)
		}
		output("%s %o %s\n", file.GetPath(), file.GetMode(), content)
	}
	if order.GetInteractive() {
		progress(&v1.BuildProgress{Text: "waiting", Waiting: true})
		for task.GetSeal() == nil {
			if task, err = stream.Recv(); err != nil {
				return nil, err
			}
		}
	}
	content := byte('1')
	for line := range strings.Lines(string(order.GetScript())) {
		word, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "echo":
			output("%s\n", text)
		case "exit":
			return nil, errors.New("the script ended with status " + text)
		case "write":
			content = text[0]
		}
	}
	return s.make(stream, content)
}

// make sends a disk of 1 MiB whose first chunk is filled with a byte.
func (s *sessions) make(stream v1.AgentService_BuildClient, content byte) (*v1.BuildOutcome, error) {
	plain := bytes.Repeat([]byte{content}, images.ChunkBytes)
	digest := images.Sum(plain)
	put, err := s.agents.PutChunks(s.ctx)
	if err != nil {
		return nil, err
	}
	if err := put.Send(&v1.PutChunksRequest{Chunks: []*v1.Chunk{{Digest: digest[:], Zstd: s.codec.Seal(plain)}}}); err != nil {
		return nil, err
	}
	if _, err := put.CloseAndRecv(); err != nil {
		return nil, err
	}
	manifest, err := images.NewManifest(4*images.ChunkBytes, []images.Digest{digest, {}, {}, {}})
	if err != nil {
		return nil, err
	}
	err = stream.Send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Manifest{Manifest: manifest.Encoded()}})
	return &v1.BuildOutcome{SentBytes: 100, ReadBytes: images.ChunkBytes}, err
}
