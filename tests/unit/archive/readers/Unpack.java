import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.pytorch.serve.archive.utils.ZipUtils;

/** For each line of standard input, an archive and an empty place: a line on what TorchServe unpacks from it there. */
public final class Unpack {

    public static void main(String[] args) throws Exception {
        PrintStream out = new PrintStream(System.out, false, "UTF-8");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = lines.readLine()) != null; ) {
            String[] asked = line.split("\t");
            File place = new File(asked[1]);
            place.mkdirs();
            String told;
            try (InputStream archive = new FileInputStream(asked[0])) {
                if (asked[0].endsWith(".mar")) {
                    ZipUtils.unzip(archive, place);
                } else {
                    ZipUtils.decompressTarGzipFile(archive, place);
                }
                told = "ok" + found(place.toPath());
            } catch (Throwable error) {
                told = "failed\t" + error.toString().replaceAll("\\s", " ");
            }
            remove(place.toPath());
            out.println(told);
            if (!lines.ready()) {
                out.flush();
            }
        }
    }

    private static String found(Path place) throws Exception {
        StringBuilder told = new StringBuilder();
        List<Path> files;
        try (Stream<Path> every = Files.walk(place)) {
            files = every.filter(Files::isRegularFile).sorted().collect(Collectors.toList());
        }
        for (Path file : files) {
            byte[] name = place.relativize(file).toString().getBytes(StandardCharsets.UTF_8);
            told.append('\t').append(hex(name)).append('=');
            told.append(hex(MessageDigest.getInstance("SHA-256").digest(Files.readAllBytes(file))));
        }
        return told.toString();
    }

    private static String hex(byte[] data) {
        StringBuilder text = new StringBuilder();
        for (byte one : data) {
            text.append(Character.forDigit(one >> 4 & 15, 16)).append(Character.forDigit(one & 15, 16));
        }
        return text.toString();
    }

    private static void remove(Path place) throws Exception {
        List<Path> every = new ArrayList<>();
        try (Stream<Path> found = Files.walk(place)) {
            found.sorted(Comparator.reverseOrder()).forEach(every::add);
        }
        for (Path path : every) {
            Files.delete(path);
        }
    }
}
