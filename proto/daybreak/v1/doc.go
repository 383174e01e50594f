// Package daybreakv1 is Daybreak's words: the messages that are stored, sent and shown, and the services.
//
// Here: the .proto files, the Go code generated from them (go test ./proto/daybreak/v1 -run TestGenerated -update), and
// the rules that values must meet, as protovalidate options on the fields. Not here: behaviour. Everybody may import it;
// it imports nothing of Daybreak.
package daybreakv1
