// Records what Go's mapstructure 1.5.0 makes of the requests in decode.json: reads the file, decodes each of its requests
// into structs with the tags of milvus-cdc's API, and prints the file anew. To run it, in an empty folder:
//
//	go mod init record && go get github.com/mitchellh/mapstructure@v1.5.0
//	cp .../decode.go main.go && go run . < .../decode.json
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"github.com/mitchellh/mapstructure"
)

type KafkaSASL struct {
	Username         string `json:"username,omitempty" mapstructure:"username,omitempty"`
	Password         string `json:"password,omitempty" mapstructure:"password,omitempty"`
	Mechanisms       string `json:"mechanisms,omitempty" mapstructure:"mechanisms,omitempty"`
	SecurityProtocol string `json:"security_protocol,omitempty" mapstructure:"security_protocol,omitempty"`
}
type KafkaConnectParam struct {
	Address    string    `json:"address" mapstructure:"address"`
	Topic      string    `json:"topic" mapstructure:"topic"`
	EnableSASL bool      `json:"enable_sasl" mapstructure:"enable_sasl"`
	SASL       KafkaSASL `json:"sasl,omitempty" mapstructure:"sasl,omitempty"`
}
type DialConfig struct {
	ServerName    string `json:"server_name,omitempty" mapstructure:"server_name,omitempty"`
	ServerPemPath string `json:"server_pem_path,omitempty" mapstructure:"server_pem_path,omitempty"`
	CaPemPath     string `json:"ca_pem_path,omitempty" mapstructure:"ca_pem_path,omitempty"`
	ClientPemPath string `json:"client_pem_path,omitempty" mapstructure:"client_pem_path,omitempty"`
	ClientKeyPath string `json:"client_key_path,omitempty" mapstructure:"client_key_path,omitempty"`
}
type MilvusConnectParam struct {
	Host            string     `json:"host" mapstructure:"host"`
	Port            int        `json:"port" mapstructure:"port"`
	EnableTLS       bool       `json:"enable_tls" mapstructure:"enable_tls"`
	Username        string     `json:"username,omitempty" mapstructure:"username,omitempty"`
	Password        string     `json:"password,omitempty" mapstructure:"password,omitempty"`
	URI             string     `json:"uri" mapstructure:"uri"`
	Token           string     `json:"token,omitempty" mapstructure:"token,omitempty"`
	DialConfig      DialConfig `json:"dial_config,omitempty" mapstructure:"dial_config,omitempty"`
	ChannelNum      int        `json:"channel_num" mapstructure:"channel_num"`
	IgnorePartition bool       `json:"ignore_partition" mapstructure:"ignore_partition"`
	ConnectTimeout  int        `json:"connect_timeout" mapstructure:"connect_timeout"`
}
type CollectionInfo struct {
	Name             string            `json:"name" mapstructure:"name"`
	Positions        map[string]string `json:"positions" mapstructure:"positions"`
	UseStartPosition bool              `json:"use_start_position" mapstructure:"use_start_position"`
}
type ChannelInfo struct {
	Name     string `json:"name" mapstructure:"name"`
	Position string `json:"position" mapstructure:"position"`
}
type NameMapping struct {
	SourceDB          string            `json:"source_db" mapstructure:"source_db"`
	TargetDB          string            `json:"target_db" mapstructure:"target_db"`
	CollectionMapping map[string]string `json:"collection_mapping" mapstructure:"collection_mapping"`
}
type ExtraInfo struct {
	EnableUserRole bool `json:"enable_user_role" mapstructure:"enable_user_role"`
}
type BufferConfig struct {
	Period int `json:"period" mapstructure:"period"`
	Size   int `json:"size" mapstructure:"size"`
}
type Create struct {
	KafkaConnectParam  KafkaConnectParam           `json:"kafka_connect_param,omitempty" mapstructure:"kafka_connect_param,omitempty"`
	MilvusConnectParam MilvusConnectParam          `json:"milvus_connect_param" mapstructure:"milvus_connect_param"`
	CollectionInfos    []CollectionInfo            `json:"collection_infos" mapstructure:"collection_infos"`
	DBCollections      map[string][]CollectionInfo `json:"db_collections" mapstructure:"db_collections"`
	RPCChannelInfo     ChannelInfo                 `json:"rpc_channel_info" mapstructure:"rpc_channel_info"`
	NameMapping        []NameMapping               `json:"name_mapping" mapstructure:"name_mapping"`
	ExtraInfo          ExtraInfo                   `json:"extra_info" mapstructure:"extra_info"`
	BufferConfig       BufferConfig                `json:"buffer_config" mapstructure:"buffer_config"`
	Positions          map[string]string           `json:"positions" mapstructure:"positions"`
	DisableAutoStart   bool                        `json:"disable_auto_start" mapstructure:"disable_auto_start"`
	TaskID             string                      `json:"task_id" mapstructure:"task_id"`
}
type Delete struct {
	TaskID         string `json:"task_id" mapstructure:"task_id"`
	IgnoreNotFound bool   `json:"ignore_not_found" mapstructure:"ignore_not_found"`
}
type Get struct {
	TaskID string `json:"task_id" mapstructure:"task_id"`
}
type Maintenance struct {
	Operation string                 `json:"operation"`
	Params    map[string]interface{} `json:"params"`
}
type Request struct {
	RequestType string         `json:"request_type"`
	RequestData map[string]any `json:"request_data"`
}

type Row struct {
	Request string `json:"request"`
	Decoded any    `json:"decoded,omitempty"`
	Error   string `json:"error,omitempty"`
}

func main() {
	var rows []Row
	check(json.NewDecoder(os.Stdin).Decode(&rows))
	for i, row := range rows {
		var request Request
		check(json.Unmarshal([]byte(row.Request), &request))
		var model any
		switch request.RequestType {
		case "create":
			model = &Create{}
		case "delete":
			model = &Delete{}
		case "list":
			model = &struct{}{}
		case "maintenance":
			model = &Maintenance{}
		default:
			model = &Get{}
		}
		rows[i] = Row{Request: row.Request, Decoded: model}
		if err := mapstructure.Decode(request.RequestData, model); err != nil {
			rows[i] = Row{Request: row.Request, Error: err.Error()}
		}
		var line bytes.Buffer
		encoder := json.NewEncoder(&line)
		encoder.SetEscapeHTML(false)
		check(encoder.Encode(rows[i]))
		fmt.Print([]string{"[\n", ",\n"}[min(i, 1)], string(bytes.TrimSpace(line.Bytes())))
	}
	fmt.Println("\n]")
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
