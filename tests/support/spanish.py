"""Spanish prose in a folder, as people keep it: old encodings, copies, a manual page, a text of another language."""

from __future__ import annotations

import gzip
from pathlib import Path

TEXTS = (
    "El panadero de la esquina abre la puerta antes de que salga el sol. Enciende el horno, pesa la harina y "
    "espera a que la masa suba despacio. Los vecinos dicen que el secreto está en el agua de la fuente, pero él "
    "sabe que todo depende de la paciencia. A las siete llega el primer cliente, que siempre compra dos barras "
    "y pregunta por la familia. Después vienen los niños que van al colegio, y la tienda se llena de voces "
    "hasta las nueve.",
    "En el norte llueve casi todas las semanas, y por eso las montañas son verdes incluso en verano. Los ríos "
    "bajan con fuerza hacia el mar y arrastran piedras que suenan por la noche. Quien camina por los senderos "
    "debe llevar ropa de abrigo, porque el tiempo cambia en pocos minutos. Desde la cumbre se ven los pueblos "
    "pequeños, con sus tejados rojos y sus huertas, y más allá la línea gris de la costa que se pierde entre "
    "las nubes.",
    "Mi abuela guardaba las cartas en una caja de madera que olía a lavanda. Algunas venían de muy lejos y "
    "tenían sellos de colores que nosotros queríamos coleccionar. Ella las leía en voz alta los domingos, con "
    "las gafas en la punta de la nariz, y se detenía siempre en la misma frase. Nunca supimos quién la había "
    "escrito. Cuando murió, la caja pasó a mi madre, que todavía no se ha atrevido a abrirla, aunque la limpia "
    "con cuidado cada primavera.",
    "El tren de las ocho y cuarto nunca llega a su hora, y los viajeros ya no se enfadan. Leen el periódico, "
    "miran el reloj de la estación y hablan del precio de la vida. Un hombre con sombrero vende café en una "
    "mesa plegable y conoce el nombre de todos. Cuando por fin aparece la locomotora, la gente sube sin prisa, "
    "busca un asiento junto a la ventana y se duerme antes de que el tren cruce el puente de hierro que está a "
    "la salida de la ciudad.",
    "La biblioteca del barrio cierra los lunes, pero el resto de la semana está llena. Los estudiantes ocupan "
    "las mesas grandes y los jubilados prefieren los sillones que dan al patio. La bibliotecaria conoce los "
    "gustos de cada uno y aparta las novedades antes de ponerlas en la estantería. En invierno organiza "
    "lecturas para los más pequeños, que se sientan en el suelo con la boca abierta. Dice que un libro que "
    "nadie lee es como una casa sin ventanas.",
    "Para hacer una buena tortilla hacen falta huevos frescos, patatas, aceite de oliva y un poco de sal. Las "
    "patatas se cortan en láminas finas y se fríen despacio, sin que lleguen a dorarse. Luego se mezclan con "
    "los huevos batidos y se dejan reposar unos minutos. La sartén tiene que estar muy caliente cuando se echa "
    "la mezcla. El momento difícil es el de darle la vuelta, y hay quien usa un plato y quien confía en la "
    "suerte y en la fuerza del brazo.",
    "Los astrónomos llevan siglos mirando las mismas estrellas y todavía encuentran cosas que no esperaban. Un "
    "telescopio moderno reúne la luz de toda una noche y la convierte en números que después se comparan con "
    "los de otras noches. Si un punto ha cambiado de lugar, puede ser un asteroide; si ha cambiado de brillo, "
    "tal vez una estrella que se apaga. El trabajo es lento, y la mayor parte de los hallazgos los hace alguien "
    "que estaba buscando otra cosa.",
    "El mercado ocupa la plaza entera y empieza cuando todavía está oscuro. Las mujeres que vienen de la sierra "
    "traen queso, miel y hierbas que sirven para todo. Los pescadores llegan un poco más tarde, con las cajas "
    "llenas de hielo, y gritan los precios por encima de la música. A mediodía se recoge lo que sobra, se barre "
    "el suelo y los bares sirven sopa. Por la tarde no queda nada, salvo las palomas y un olor a fruta madura "
    "que dura hasta el día siguiente.",
    "Aprender a tocar la guitarra exige más constancia que talento. Durante los primeros meses duelen los dedos "
    "y las canciones suenan torpes, de modo que muchos abandonan. El maestro aconseja practicar todos los días, "
    "aunque sea un cuarto de hora, y escuchar con atención lo que se hace mal. Al cabo de un año la mano "
    "izquierda encuentra sola los acordes y la derecha se olvida de contar. Entonces empieza lo bueno, que es "
    "tocar con otros y equivocarse juntos.",
    "La fábrica cerró hace veinte años y desde entonces el edificio ha sido almacén, sala de baile y refugio de "
    "gatos. Ahora el ayuntamiento quiere convertirlo en un museo del agua, y los antiguos obreros han prestado "
    "fotografías y herramientas. En una de ellas aparece mi padre con el pelo negro, apoyado en una máquina que "
    "yo no había visto nunca. Dicen que la inauguración será en otoño, si hay dinero para el tejado, y que "
    "habrá que pagar la entrada.",
    "Cuando se estropea un ordenador, lo primero es guardar los documentos en otro lugar. Después conviene "
    "apuntar qué se estaba haciendo y qué mensaje apareció en la pantalla, porque la memoria engaña. Muchas "
    "averías se arreglan al apagar la máquina y encenderla de nuevo, y otras se deben a un cable que alguien ha "
    "movido al limpiar. Si nada de eso sirve, es mejor pedir ayuda que abrir la caja, y no volver a guardar "
    "nada en el disco que hace ruido.",
    "El equipo del pueblo perdió los once primeros partidos y nadie dejó de ir al campo. Los domingos, antes de "
    "comer, las gradas se llenaban de paraguas y de consejos para el entrenador, que era también el cartero. En "
    "marzo ganaron por un gol que todavía se discute, y la fiesta duró hasta el martes. Terminaron los últimos, "
    "como siempre, pero en el bar hay una copa de plástico que recuerda aquella tarde y que se limpia todas las "
    "semanas con un trapo.",
    "Antes de plantar un árbol hay que pensar en la sombra que dará dentro de treinta años. La tierra se cava "
    "en otoño, se deja respirar durante el invierno y se riega despacio en primavera, cuando las raíces "
    "despiertan. Un árbol joven necesita un palo que lo sujete contra el viento y alguien que se acuerde de él "
    "en agosto. Los frutos tardan, y a veces los come otro, pero quien planta no espera una recompensa, sino "
    "que el lugar sea un poco mejor.",
    "La reunión empezó tarde porque la presidenta no encontraba las llaves de la sala. Se aprobaron las cuentas "
    "sin leerlas y se habló durante una hora del ruido de las motos. Un vecino propuso poner macetas en la "
    "acera; otro recordó que el año pasado las habían robado. Al final se decidió escribir una carta al "
    "ayuntamiento y formar un grupo de tres personas que no se llevan bien. La próxima reunión será el segundo "
    "jueves del mes que viene, a la misma hora.",
)
ENGLISH = (
    "The baker on the corner opens the door before the sun is up. He lights the oven, weighs the flour and "
    "waits for the dough to rise slowly. The neighbours say that the secret is in the water of the fountain, "
    "but he knows that all of it depends on patience. At seven the first customer comes in, who always buys two "
    "loaves and asks about the family."
)
PAGE = r""".\" -*- coding: UTF-8 -*-
.TH REGAR 1 "mayo de 2020" "Huerta 1.0" "Órdenes de usuario"
.SH NOMBRE
regar \- echa agua a las plantas que tienen sed
.SH DESCRIPCIÓN
La orden \fBregar\fP abre la llave del agua durante el tiempo que se le diga y
la cierra despu\('es.  Si no se indica ninguna planta, riega todas las que
están en el fichero \fI/etc/huerta\fP, en el orden en el que aparecen.
.TP
\fB\-t\fP, \fB\-\-tiempo\fP=\fISEGUNDOS\fP
deja correr el agua durante los \fISEGUNDOS\fP que se indiquen, y no más
.TP
.B \-v
cuenta en la pantalla lo que hace, con el nombre de cada planta y el agua que se
le ha echado
.SH "VÉASE TAMBIÉN"
.BR podar (1),
.BR cosechar (8)
"""


def write_spanish(folder: Path) -> None:
    """The texts as files: UTF-8, one in Latin-1 and one decoded by the wrong table; beside them what should fall."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(TEXTS):
        path = folder / f"{number:02d}.txt"
        if number == 1:
            path.write_bytes(text.encode("latin-1"))
        else:
            path.write_text(text.encode().decode("cp1252", "replace") if number == 2 else text)
    (folder / "copia.txt").write_text(TEXTS[3])
    (folder / "casi.txt").write_text(f"{TEXTS[4]} Y tiene razón.")
    (folder / "baker.txt").write_text(ENGLISH)
    (folder / "regar.1.gz").write_bytes(gzip.compress(PAGE.encode(), mtime=0))
