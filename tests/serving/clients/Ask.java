import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;

/** Posts a file to an address with the default client: of known length, again, and in chunks. */
public class Ask {
    public static void main(String[] arguments) throws Exception {
        byte[] image = Files.readAllBytes(Path.of(arguments[1]));
        BodyPublisher known = BodyPublishers.ofByteArray(image);
        BodyPublisher unknown = BodyPublishers.fromPublisher(known);
        HttpClient client = HttpClient.newHttpClient();
        for (BodyPublisher body : new BodyPublisher[] {known, known, unknown}) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0]))
                    .header("Content-Type", "image/png").POST(body).build();
            var answer = client.send(request, BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body());
        }
    }
}
