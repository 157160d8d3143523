// Reads partition 0 of some topics from their beginning to their present end with Kafka's own client, and prints the
// bytes of the messages and the seconds that it took: the base that our reading is measured against.
//
//     java -cp "libs/*" KafkaReader.java host:port topic...

import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class KafkaReader {
    public static void main(String[] args) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", args[0]);
        settings.put("enable.auto.commit", "false");
        settings.put("max.partition.fetch.bytes", "16777216");
        settings.put("fetch.max.bytes", "67108864");
        settings.put("receive.buffer.bytes", "1048576");
        List<TopicPartition> partitions = new ArrayList<>();
        for (int i = 1; i < args.length; i++) partitions.add(new TopicPartition(args[i], 0));
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<byte[], byte[]>(settings, bytes, bytes)) {
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            long began = System.nanoTime(), sum = 0;
            Set<TopicPartition> open = new HashSet<>(partitions);
            while (!open.isEmpty()) {
                for (var record : consumer.poll(Duration.ofMillis(100))) sum += record.value().length;
                open.removeIf(partition -> consumer.position(partition) >= ends.get(partition));
            }
            System.out.println(sum + " " + (System.nanoTime() - began) / 1e9);
        }
    }
}
