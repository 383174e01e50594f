package api

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"daybreak/images"
	"daybreak/images/push"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

const hostUID = "11111111-1111-4111-8111-111111111111"

// called is a host that is called to builds and says with which id.
type called struct {
	fakeSessions
	ids chan string
}

func (c called) CallBuild(_ context.Context, _, id string, _ *v1.BuildAsk) error {
	c.ids <- id
	return nil
}

// buildRig is a server with an image "debian" and a host "kvm1" that is up.
func buildRig(t *testing.T) (*rig, chan string) {
	chunks, codec := newChunks(t)
	ids := make(chan string, 2)
	r := newRig(t, withAll(t), func(c *Config) { c.Chunks, c.Sessions = chunks, called{ids: ids} })
	r.put(store.WriterAPI, &v1.Host{Meta: &v1.Meta{Name: "kvm1", Uid: hostUID}, Spec: &v1.HostSpec{}})
	edit(r, store.WriterDispatch, "kvm1", func(h *v1.Host) {
		h.Status = &v1.HostStatus{
			Phase: v1.HostPhase_HOST_PHASE_UP, Capacity: &v1.HostCapacity{Cpus: 4, MemoryMib: 8192, StoreBytes: 1 << 40, Kvm: true},
			Usage: &v1.HostUsage{StoreAvailableBytes: 1 << 39},
		}
	})
	if _, err := push.Disk(t.Context(), r.as(v1.Role_ROLE_ADMIN), codec, newDisk(t, 3), &v1.VersionHeader{Image: "debian"}, nil); err != nil {
		t.Fatal(err)
	}
	return r, ids
}

func orderCheck(t *testing.T, client v1.ImageServiceClient) v1.ImageService_BuildClient {
	t.Helper()
	stream, err := client.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	order := &v1.BuildOrder{Kind: v1.BuildKind_BUILD_KIND_CHECK, Image: "debian"}
	if err := stream.Send(&v1.BuildRequest{Say: &v1.BuildRequest_Order{Order: order}}); err != nil {
		t.Fatal(err)
	}
	return stream
}

// finish reads a build to its end.
func finish(stream v1.ImageService_BuildClient) (*v1.BuildResult, error) {
	var result *v1.BuildResult
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return result, nil
		}
		if err != nil {
			return nil, err
		}
		if response.GetResult() != nil {
			result = response.GetResult()
		}
	}
}

func TestBuildMeetsItsAgent(t *testing.T) {
	r, ids := buildRig(t)
	agent := v1.NewAgentServiceClient(r.asHost("kvm1", hostUID))
	put := func() error {
		_, err := agent.MissingChunks(t.Context(), &v1.MissingChunksRequest{Digests: make([]byte, images.DigestBytes)})
		return err
	}
	wantCode(t, put(), codes.PermissionDenied, "host kvm1 makes no image version now")
	stream := orderCheck(t, v1.NewImageServiceClient(r.as(v1.Role_ROLE_ADMIN)))
	id := <-ids
	build, err := agent.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := build.Send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Id{Id: id}}); err != nil {
		t.Fatal(err)
	}
	task, err := build.Recv()
	if err != nil || task.GetAssignment().GetOrder().GetVersion() != 1 {
		t.Fatalf("%v %v", task, err)
	}
	// A check makes nothing, so that its host has nothing to put.
	wantCode(t, put(), codes.PermissionDenied)
	if err := build.Send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Outcome{Outcome: &v1.BuildOutcome{Check: "well"}}}); err != nil {
		t.Fatal(err)
	}
	result, err := finish(stream)
	if err != nil || result.GetVersion().GetCheck() != "well" || result.GetVersion().GetState() != v1.VersionState_VERSION_STATE_READY {
		t.Errorf("%v %v", result, err)
	}
	late, err := agent.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := late.Send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Id{Id: id}}); err != nil {
		t.Fatal(err)
	}
	_, err = late.Recv()
	wantCode(t, err, codes.NotFound, "nobody waits")
	noted := false
	for _, record := range r.audited() {
		noted = noted || record.Method == "ImageService/Build" && record.Object == "image/debian" && strings.HasPrefix(record.Note, "check of version 0")
	}
	if !noted {
		t.Error("the build is not in the audit log")
	}
}

// PutChunks without a build is refused before anything is kept.
func TestHostsPutNothingUnasked(t *testing.T) {
	r, _ := buildRig(t)
	stream, err := v1.NewAgentServiceClient(r.asHost("kvm1", hostUID)).PutChunks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	plain := []byte("nobody asked")
	digest := images.Sum(plain)
	_, codec := newChunks(t)
	_ = stream.Send(&v1.PutChunksRequest{Chunks: []*v1.Chunk{{Digest: digest[:], Zstd: codec.Seal(plain)}}})
	_, err = stream.CloseAndRecv()
	wantCode(t, err, codes.PermissionDenied, "host kvm1 makes no image version now")
	missing, err := v1.NewImageServiceClient(r.as(v1.Role_ROLE_ADMIN)).MissingChunks(t.Context(), &v1.MissingChunksRequest{Digests: digest[:]})
	if err != nil || len(missing.GetDigests()) != images.DigestBytes {
		t.Errorf("the chunk was kept: %v", err)
	}
}

// Only administrators build.
func TestWhoMayBuild(t *testing.T) {
	r, _ := buildRig(t)
	for _, role := range []v1.Role{v1.Role_ROLE_OPERATOR, v1.Role_ROLE_VIEWER} {
		client := v1.NewImageServiceClient(r.as(role))
		stream, err := client.Build(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		wantCode(t, err, codes.PermissionDenied)
		_, err = client.Seal(t.Context(), &v1.SealRequest{Image: "debian"})
		wantCode(t, err, codes.PermissionDenied)
	}
	_, err := v1.NewImageServiceClient(r.as(v1.Role_ROLE_ADMIN)).Seal(t.Context(), &v1.SealRequest{Image: "debian"})
	wantCode(t, err, codes.NotFound, "no interactive build of image debian")
}
